"""The report and the examples as self-contained HTML pages: no script, nothing loaded, every text escaped.

Only the page of examples quotes the chat; each message has its own direction (`dir="auto"`), so that Hebrew reads from
the right and a direction mark in a message cannot affect the rest. Nothing is computed here. The blind test renders a
template of its own with `render_page`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

from common.script import counted
from writing_style.held_out_replies import Exchange, take_evenly
from writing_style.style_verdict import MIN_REPLIES

PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src {% if script %}'sha256-{{ script_hash }}'{% else %}'none'{% endif %}; form-action 'none'">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
:root{color-scheme:light dark}
body{--line:#ddd;font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;background:#fff;\
color:#1a1a1a}
h1{font-size:1.7rem;line-height:1.25} h2{font-size:1.15rem;margin-top:2.2rem}
.summary{font-size:1.1rem}
figure{margin:1.5rem 0} svg{width:100%;height:auto;max-height:none} svg text{fill:currentColor}
table{border-collapse:collapse;width:100%;font-size:.92rem} th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line)}
td{text-align:end;font-variant-numeric:tabular-nums} th{text-align:start}
th+th{text-align:end}
.no{color:#b00020} .yes{color:#00664a} .open{color:#7a5c00} .grey{background:#d9d9d9} .warning{color:#b00020;font-weight:600}
.bubble{border-radius:.6rem;padding:.35rem .7rem;margin:.25rem 0;display:block;white-space:pre-wrap;\
overflow-wrap:anywhere;unicode-bidi:isolate;width:fit-content;max-width:100%}
.user{background:#dcf8c6;color:#111;margin-left:auto} .assistant{background:#dbeafe;color:#111}
.three{display:grid;grid-template-columns:repeat(3,1fr);gap:1rem;border-bottom:1px solid var(--line);padding-bottom:1.2rem}
@media(max-width:45rem){.three{grid-template-columns:1fr}}
@media(prefers-color-scheme:dark){
body{--line:#3c4048;background:#16181c;color:#e6e6e6} .grey{background:#3b3b3b}
.no,.warning{color:#ff9a9a} .yes{color:#6fd6ae} .open{color:#e6c35c}
svg [style*="stroke: #000000"],svg [style*="fill: #000000"]{stroke:currentColor!important}
}
</style></head>
<body{% if is_grey %} class="grey"{% endif %}>
{% block body %}{% endblock %}
{% if script %}<script>{{ script | safe }}</script>{% endif %}
</body></html>
"""

PARTS = """
{% macro bubbles(role, text) %}
{% for line in text.split("\\n") if line.strip() %}
<span class="bubble {{ role }}" dir="auto">{{ line }}</span>
{% else %}
<span class="bubble">(empty)</span>
{% endfor %}
{% endmacro %}

{% macro holds(items) %}
<ul>
{% for item in items %}
<li>{% if item.holds %}<span class="yes">✓</span>{% else %}<span class="no">✗</span>{% endif %} {{ item.text }}</li>
{% endfor %}
</ul>
{% endmacro %}

{% macro answers(reasons) %}
<ul>
{% for reason in reasons %}
<li><span class="{{ reason.state }}">{{ {"yes": "✓ yes", "no": "✗ no", "open": "? cannot tell"}[reason.state] }}</span>: \
{{ reason.text }}{% if reason.state != "yes" %} (needed: {{ reason.needed }}){% endif %}</li>
{% endfor %}
</ul>
{% endmacro %}

{% macro table(rows, header=()) %}
<table>
{% if header %}<tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>{% endif %}
{% for row in rows %}
<tr><th>{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endmacro %}
"""

REPORT = """\
{% extends "page" %}
{% from "parts" import answers, holds, table %}
{% block body %}
{% if judged.summary %}
<p class="summary">{{ judged.summary | join(" ") }}</p>
{% endif %}
<h1>Does it write like its owner? <em>{{ judged.verdict.capitalize() }}</em></h1>
<p>{{ judged.sentence }}
{% if judged.reasons %}
{{ bits_explained }}
{% endif %}
</p>
{% if not judged.is_trustworthy %}
<p class="warning">A check of the measurement failed: do not trust this page.</p>
{% endif %}
{% if judged.reasons %}
<h2>Why this verdict</h2>
{{ answers(judged.reasons) }}
{% if judged.told_from_owner_by %}
<p>Still differs from the owner in: {{ judged.told_from_owner_by | join(", ") }}.</p>
{% else %}
<p>No measured habit separates it from the owner.</p>
{% endif %}
{% endif %}
{% if judged.warnings %}
<h2>Warnings</h2>
<ul>{% for text in judged.warnings %}<li class="warning">{{ text }}</li>{% endfor %}</ul>
{% endif %}
{% if picture_svg %}
<figure>{{ picture_svg | safe }}</figure>
{% endif %}
{% if judged.checks %}
<h2>Checks of the measurement</h2>
{{ holds(judged.checks) }}
{% endif %}
{% for set in sets %}
<h2>{{ set.heading }}</h2>
{% if set.cost %}<p>{{ set.cost }}</p>{% endif %}
<p>Verdict on this set: <strong>{{ set.judged.verdict }}</strong>. {{ set.judged.sentence }}</p>
{% if set.numbers %}
{{ table(set.numbers, set.numbers_header) }}
{% if set.situations %}
<h2>What the replies show of their situation (area under the curve, 0.5 is nothing; 95 % intervals)</h2>
{{ table(set.situations, ["situation", "the owner", "tuned model", "base model", "what the tuned model keeps"]) }}
{% endif %}
<h2>Copies, repeats, non-words (95 % intervals)</h2>
{{ table(set.excess, ["share of", "the owner", "tuned model", "difference"]) }}
<h2>Distance from the owner by habit (95 % intervals)</h2>
{{ table(set.distances, set.distances_header) }}
<h2>Openers: the owner's first messages in conversations that the owner begins</h2>
<p>{{ set.openers_sentence }}</p>
{% if set.openers %}
{{ table(set.openers, set.openers_header) }}
{% endif %}
<h2>Bits per character</h2>
{{ table(set.bits) }}
{% endif %}
{% endfor %}
{% if leaks %}
<h2>What could leak</h2>
<p>{{ leaks.sentence }}</p>
{{ table(leaks.numbers) }}
{% if leaks.codes %}
{{ table(leaks.codes, ["exposure in bits (chance about 1.4)", "base", "tuned"]) }}
{% endif %}
{% endif %}
<h2>How it was measured</h2>
{{ table(settings) }}
{% endblock %}
"""

EXAMPLES = """\
{% extends "page" %}
{% from "parts" import bubbles %}
{% block body %}
<h1>Replies side by side</h1>
<p>Private: this page quotes the chat. From left to right: the real reply, the base model, the tuned model.</p>
{% for example in examples %}
<h2>Conversation {{ "{:,}".format(example.conversation + 1) }}</h2>
{% for message in example.context %}
{{ bubbles(message.role, message.content) }}
{% endfor %}
<div class="three">
{% for name, text in [("real reply", example.owner), ("base model", example.base), ("tuned model", example.tuned)] %}
<div><strong>{{ name }}</strong>{{ bubbles("assistant", text) }}</div>
{% endfor %}
</div>
{% endfor %}
{% for how, words in [("more", key_words.overused), ("less", key_words.underused)] %}
<h2>Words the tuned model uses {{ how }} often than the owner</h2>
<p>{% for word in words %}<bdi dir="auto">{{ word }}</bdi>{{ ", " if not loop.last }}{% else %}none{% endfor %}</p>
{% endfor %}
{% endblock %}
"""

# Only our own drawing and our own script are marked safe; everything else is escaped.
ENVIRONMENT = Environment(
    autoescape=True,
    loader=DictLoader({"page": PAGE, "parts": PARTS}),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

BITS_EXPLAINED = (
    "Bits per character say how hard the next character of a real reply is to guess: with one bit less, a model hesitates "
    "between half as many characters."
)
WRITER_LABELS = {
    "owner": "the owner",
    "tuned": "tuned model",
    "base": "base model",
    "base_cut": "base, cut to the owner's lengths",
    "other": "the other person",
}

# The rows of the tables: the key in the report and its label.
PLAIN_NUMBERS = {
    "num_replies": "Replies",
    "median_chars": "Characters in a message (median)",
    "median_words": "Words in a message (median)",
    "messages_per_reply": "Messages per reply",
    "share_with_emoji": "Messages with emoji",
    "share_laughing": "Messages with laughter",
    "share_elongated": "Messages with stretched letters",
    "share_ending_bare": "Messages without a mark at the end",
    "latin_share_of_letters": "Latin letters",
    "distinct_word_pairs": "Distinct word pairs",
    "share_repeated_replies": "Replies that repeat another reply",
    "share_empty": "Empty replies",
    "share_looping": "Replies with a loop",
}
COPY_NUMBERS = {
    "mean_longest_run_words": "longest run of words found in training (mean)",
    "longest_run_words": "longest run of words found in training (maximum)",
    "share_long_runs": "replies with a run of six words or more",
    "num_exact_copies": "whole replies of more than three words",
}


def render_page(template: str, title: str, is_grey: bool = False, script: str = "", **values: Any) -> str:
    """Return the page of `template`, which extends "page". Only `script`, which must be our own, may run on it."""
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = ENVIRONMENT.from_string(template)
    return page.render(title=title, is_grey=is_grey, script=script, script_hash=script_hash, **values)


def make_report_page(report: Mapping[str, Any], picture_svg: str | None) -> str:
    """Return the page of the report: verdict, reasons, picture and numbers. It quotes nothing from the chat."""
    settings = report["settings"]
    decisive = report["sets"][settings["headline_set"]]
    return render_page(
        REPORT,
        title=f"Style report: {report['verdict']}",
        is_grey=not decisive["is_trustworthy"],
        judged=decisive,
        bits_explained=BITS_EXPLAINED,
        picture_svg=picture_svg,
        sets=[
            _describe_set(name, measured, is_headline=name == settings["headline_set"])
            for name, measured in report["sets"].items()
        ],
        leaks=_describe_leaks(report["leak_probe"]) if "leak_probe" in report else None,
        settings=_rows(settings),
    )


def describe_cost(cost: Mapping[str, Any]) -> str:
    """Return the cost as a sentence."""
    difference = cost["difference"]
    return (
        f"the exported model ({cost['engine']}): {cost['exported']['value']:.4f} bits per character of the real replies, "
        f"the unquantised adapter {cost['unquantised']['value']:.4f}; "
        f"difference {difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
    )


def _describe_set(name: str, measured: Mapping[str, Any], is_headline: bool) -> dict[str, Any]:
    """Return what the template shows of one held-out set; `numbers` is empty when there was too little data."""
    what = {"spread": "blocks spread over the whole period", "latest": "the last conversations in time"}[name]
    counts = f"{counted(measured['num_replies'], 'reply')} in {counted(measured['num_conversations'], 'conversation')}"
    heading = f"Held-out set “{name}” ({what}{'; decides the verdict' if is_headline else ''}): {counts}"
    described: dict[str, Any] = {"heading": heading, "judged": measured, "numbers": [], "cost": None}
    if "bits" not in measured:
        return described
    if "cost_of_exporting" in measured:
        described["cost"] = f"Measured as the tuned model: {describe_cost(measured['cost_of_exporting'])}."
    writers, copies = measured["writers"], measured["copies"]
    plain = [
        [label, *(_number(writers[writer][key], key) for writer in writers)] for key, label in PLAIN_NUMBERS.items()
    ]
    copied = [
        [f"Copies: {label}", *(_number(copies[writer][key], key) if writer in copies else "" for writer in writers)]
        for key, label in COPY_NUMBERS.items()
    ]
    names = [key for key in ("owner", "tuned", "base", "other") if key in writers]
    described["numbers"], described["numbers_header"] = plain + copied, ["", *(WRITER_LABELS[name] for name in writers)]
    described["situations"] = [
        [
            row["label"],
            *(_interval(row[name]) for name in ("owner", "tuned", "base")),
            _kept(row),
        ]
        for row in measured["situations"]["rows"]
    ]
    described["excess"] = [
        [row["label"], *(_interval(row[name]) for name in ("owner", "tuned", "excess"))] for row in measured["excess"]
    ]
    described["distances"] = _distances(measured["habits"], names)
    described["distances_header"] = _distances_header(names)
    openers = measured["openers"]
    models = [name for name in names if name != "other"]
    described["openers"], described["openers_header"] = _distances(openers["habits"], models), _distances_header(models)
    described["openers_sentence"] = counted(openers["num_openers"], "opener") + (
        " compared. Nothing is heard before them, so they count in no other number and not in the verdict."
        if openers["habits"]
        else f" held out; at least {MIN_REPLIES} are needed to compare them."
    )
    described["bits"] = [[key.replace("_", " "), _interval(value)] for key, value in measured["bits"].items()]
    return described


def _distances(rows: Sequence[Mapping[str, Any]], writers: Sequence[str]) -> list[list[str]]:
    return [
        [row["label"], *(_interval(row[key]) if key in row else "" for key in writers), _closer(row)] for row in rows
    ]


def _distances_header(writers: Sequence[str]) -> list[str]:
    shown = ["the owner, second half" if name == "owner" else WRITER_LABELS[name] for name in writers]
    return ["", *shown, "what this says of the tuned model"]


def _describe_leaks(leaks: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows of the leak probe."""
    codes = [
        [
            f"{row['kind']}, told {counted(row['num_times'], 'time')} by the "
            f"{'owner' if row['side'] == 'owner' else 'other person'} ({row['num_canaries']})",
            f"{row['base_exposure_bits']:.1f}",
            f"{row['tuned_exposure_bits']:.1f}",
        ]
        for row in leaks.get("canaries", [])
    ]
    numbers = _rows({key: value for key, value in leaks.items() if key not in ("sentence", "canaries")})
    return {"sentence": leaks["sentence"], "numbers": numbers, "codes": codes}


def _closer(row: Mapping[str, Any]) -> str:
    if not row["is_measurable"]:
        return "cannot tell"
    if row["is_closer"]:
        return "closer" if row["is_told_from_owner"] else "as the owner"
    return "farther than the base" if row["is_farther"] else "not clearly closer"


def _kept(row: Mapping[str, Any]) -> str:
    return _interval(row["kept"]) if row["is_measurable"] else "the owner's replies do not show it"


def _number(value: float, key: str) -> str:
    if key.startswith(("share_", "latin_", "distinct_")):
        return f"{value:.1%}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.1f}"


def _interval(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _rows(values: Mapping[str, Any]) -> list[list[str]]:
    return [[key.replace("_", " "), _shown(value)] for key, value in values.items()]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown}" for name, shown in _rows(value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def choose_examples(
    exchanges: Sequence[Exchange], base: Sequence[str], tuned: Sequence[str], num_shown: int
) -> list[dict[str, Any]]:
    """Return `num_shown` contexts, evenly spaced, with the real reply and both models' replies.

    `base` and `tuned` are the replies to `exchanges`, in their order.
    """
    return [
        {
            "conversation": exchanges[place].conversation,
            "context": exchanges[place].context,
            "owner": exchanges[place].reply,
            "base": base[place],
            "tuned": tuned[place],
        }
        for place in take_evenly(range(len(exchanges)), num_shown)
    ]


def make_examples_page(examples: Sequence[Mapping[str, Any]], key_words: Mapping[str, Sequence[str]]) -> str:
    """Return the private page of examples, and of the words the tuned model uses too often or too seldom."""
    return render_page(EXAMPLES, title="Replies side by side (private)", examples=examples, key_words=key_words)
