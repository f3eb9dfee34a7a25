"""The report of the digest as a page for the terminal and as a self-contained HTML page.

Every quoted message is isolated, so that Hebrew reads from the right and leaves the rest of its line in place. The HTML page
loads nothing and runs no script, and every text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from period_figures import MAX_LISTED

from common.script import counted
from common.text_safety import remove_unsafe_characters

LRM = "\N{LEFT-TO-RIGHT MARK}"
FSI = "\N{FIRST STRONG ISOLATE}"
PDI = "\N{POP DIRECTIONAL ISOLATE}"
MAX_QUOTED_CHARS = 200  # on the page of the terminal
NUM_LINKS = 5
NOTHING = "nothing found"
HEADINGS = {  # of the lists, in the order of the page
    ("unanswered", "to_me"): "Questions to you without an answer",
    ("unanswered", "of_mine"): "Your questions without an answer",
    ("promises", "of_mine"): "What you promised",
    ("promises", "of_others"): "What you were promised",
    ("plans", "ahead"): "Days ahead",
    ("plans", "past"): "Days that are past",
    ("plans", "not_certain"): "Days that are not certain",
}


def make_text_page(report: Mapping[str, Any], num_shown: int) -> str:
    """Return the page for the terminal, with at most `num_shown` entries of each list."""
    has_chats = len(report["figures"]) > 1
    lines = [_title(report)]
    for (part, name), heading in HEADINGS.items():
        items = report[part][name]
        lines += ["", f"{heading}: {_counted(items)}" if items else f"{heading}: {NOTHING}"]
        for item in items[:num_shown]:
            lines += _entry(item, has_chats)
        if len(items) > num_shown:
            lines.append(f"  and {len(items) - num_shown:,} more (--show N lists N, --json and --html all)")
    lines += ["", "The period in figures"]
    for figures in report["figures"]:
        lines += [f"  {line}" for line in _figure_lines(figures, has_chats, _isolated)]
    return "".join(f"{LRM}{line}\n" if line else "\n" for line in lines)


def _title(report: Mapping[str, Any]) -> str:
    first, last = report["first_message"][:10], report["last_message"][:10]
    return f"Digest for {', '.join(map(_isolated, report['me']))}, {first} to {last}"


def _entry(item: Mapping[str, Any], has_chats: bool) -> Iterator[str]:
    chat = f" ({_isolated(item['chat'])})" if has_chats else ""
    said = f"{_minute(item['sent_at'])}{chat} {_said(item)}"
    if "date" in item:
        yield f"  {_day_of_plan(item)}  {_isolated(item['words'])}"
        yield f"      {said}"
        return
    if "looks_kept_by" in item:
        kept_by = item["looks_kept_by"]
        yield f"  {'✓' if kept_by else '·'} {said}"
        if kept_by:
            yield f"      looks kept: {_minute(kept_by['sent_at'])} {_said(kept_by)}"
        return
    yield f"  {said}"
    for later in item["since"]:
        yield f"      since: {_minute(later['sent_at'])} {_said(later)}"


def _said(item: Mapping[str, Any]) -> str:
    return f"{_isolated(item['sender'])}: {_isolated(item['text'])}"


def _isolated(text: str) -> str:
    line = " ".join(remove_unsafe_characters(text[: 4 * MAX_QUOTED_CHARS]).split())
    return f"{FSI}{line if len(line) <= MAX_QUOTED_CHARS else line[:MAX_QUOTED_CHARS] + '…'}{PDI}"


def _minute(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M}"


def _day_of_plan(item: Mapping[str, Any]) -> str:
    if item["date"] is None:
        return "?"
    return f"{date.fromisoformat(item['date']):%a %Y-%m-%d}" + (f" {item['time']}" if item["time"] else "")


def _figure_lines(figures: Mapping[str, Any], has_chats: bool, shown: Callable[[str], str]) -> Iterator[str]:
    """Yield a line for each figure; `shown` makes a text from the chat fit for the page."""
    if has_chats:
        yield f"Chat {shown(figures['chat'])}"
    people = (
        f"{shown(person['name'])} {counted(person['num_messages'], 'message')} with {counted(person['num_words'], 'word')}"
        for person in figures["people"]
    )
    yield f"Written: {'; '.join(people)}"
    hour = figures["busiest_hour"]
    yield f"Most is written between {hour:02}:00 and {(hour + 1) % 24:02}:00, and on {figures['busiest_weekday']}"
    if figures["longest_silence"]:
        start, end = map(datetime.fromisoformat, figures["longest_silence"])
        yield f"Longest silence: {_length(end - start)}, from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
    if figures["without_words"]:
        kinds = ", ".join(f"{kind.replace('_', ' ')} {number:,}" for kind, number in figures["without_words"].items())
        yield f"Without words: {kinds}"
    for what, key in (("Links", "links"), ("Files", "files")):
        items = figures[key]
        if items:
            names = ", ".join(shown(item["address" if key == "links" else "name"]) for item in items[:NUM_LINKS])
            yield f"{what}: {_counted(items)}{', the latest' if len(items) > NUM_LINKS else ''}: {names}"
    for item in figures["most_answered"]:
        yield f"Answered {item['num_answers']:,} times in ten minutes: {_minute(item['sent_at'])} {shown(item['sender'])}: {shown(item['text'])}"


def _counted(items: Sequence[object]) -> str:
    """Return the number of entries; of some lists only the latest are kept."""
    return f"the latest {len(items):,}" if len(items) == MAX_LISTED else f"{len(items):,}"


def _length(length: timedelta) -> str:
    hours = int(length.total_seconds()) // 3600
    return counted(hours // 24, "day") if hours >= 72 else counted(hours, "hour") if hours else "less than an hour"


# ---- HTML ------------------------------------------------------------------------------------------------------------

PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; form-action 'none'">
<meta name="viewport" content="width=device-width">
<title>Digest (private)</title>
<style>
:root{color-scheme:light dark;--page:#fff;--ink:#1a1a1a;--pale:#595959;--line:#ddd;--quote:#e7f0fd;--later:#f1f1f1;--kept:#00664a}
@media (prefers-color-scheme:dark){
:root{--page:#16191d;--ink:#e8e8e8;--pale:#a8adb3;--line:#3a3f45;--quote:#1f3350;--later:#2a2e33;--kept:#5fd3a8}}
body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;background:var(--page);color:var(--ink)}
h1{font-size:1.5rem} h2{font-size:1.15rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
ul{list-style:none;padding:0} li{margin:.6rem 0;overflow-wrap:anywhere}
.meta{color:var(--pale);font-size:.85rem} .kept{color:var(--kept)}
.quote{display:block;white-space:pre-wrap;unicode-bidi:isolate;background:var(--quote);\
border-radius:.6rem;padding:.35rem .7rem;width:fit-content;max-width:100%;box-sizing:border-box}
.later .quote{background:var(--later);font-size:.92rem} .later{margin-inline-start:1.5rem}
.day{font-weight:600}
</style></head>
<body>
<h1>Digest for {% for name in report.me %}<bdi>{{ name }}</bdi>{{ ", " if not loop.last }}{% endfor %}</h1>
<p class="meta">Private: this page quotes the chat. {{ report.first_message[:10] }} to {{ report.last_message[:10] }}.
A mark or a date is a guess from the words; read the words.</p>
{% macro said(item) %}
<span class="meta">{{ minute(item.sent_at) }}{% if has_chats and item.chat %} <bdi>{{ item.chat }}</bdi>{% endif %} <bdi>{{ item.sender }}</bdi></span>
<span class="quote" dir="auto">{{ item.text }}</span>
{% endmacro %}
{% for heading, items in lists %}
<h2>{{ heading }}{% if items %} ({{ counted(items) }}){% endif %}</h2>
{% if not items %}<p>{{ nothing }}</p>{% endif %}
<ul>
{% for item in items %}
<li>
{% if "date" in item %}<div><span class="day">{{ day_of_plan(item) }}</span> <bdi dir="auto">{{ item.words }}</bdi></div>{% endif %}
{{ said(item) }}
{% if item.looks_kept_by %}<div class="later"><span class="kept">✓ looks kept</span> {{ said(item.looks_kept_by) }}</div>{% endif %}
{% for later in item.since %}<div class="later">{{ said(later) }}</div>{% endfor %}
</li>
{% endfor %}
</ul>
{% endfor %}
<h2>The period in figures</h2>
<ul>
{% for line in figure_lines %}<li>{{ line }}</li>{% endfor %}
</ul>
</body></html>
"""


def make_html_page(report: Mapping[str, Any]) -> str:
    """Return the HTML page, with every entry."""
    from jinja2 import Environment
    from markupsafe import Markup

    def shown(text: str) -> str:
        return str(Markup('<bdi dir="auto">{}</bdi>').format(text))

    lists = [(heading, report[part][name]) for (part, name), heading in HEADINGS.items()]
    has_chats = len(report["figures"]) > 1
    lines = [Markup(line) for figures in report["figures"] for line in _figure_lines(figures, has_chats, shown)]
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    return remove_unsafe_characters(
        page.render(
            report=report,
            lists=lists,
            has_chats=has_chats,
            figure_lines=lines,
            nothing=NOTHING,
            minute=_minute,
            counted=_counted,
            day_of_plan=_day_of_plan,
        )
    )
