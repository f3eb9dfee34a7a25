"""The report and the examples as self-contained pages: no script, nothing loaded, every text escaped.

Texts of the chat stand only on the page of examples, each in a direction of its own (`dir="auto"`), so that Hebrew
reads from the right and nothing in a reply can act on the page. It computes nothing.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from turns import Messages

from common.script import counted
from writing_style.held_out_replies import Exchange, take_evenly

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;background:#fff;color:#1a1a1a}
h1{font-size:1.7rem;line-height:1.25} h2{font-size:1.15rem;margin-top:2.2rem}
figure{margin:1.5rem 0} svg{width:100%;height:auto;max-height:none}
table{border-collapse:collapse;width:100%;font-size:.92rem} th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd}
td{text-align:end;font-variant-numeric:tabular-nums} th{text-align:start}
th+th{text-align:end}
.no{color:#b00020} .yes{color:#00664a} .grey{background:#d9d9d9} .warning{color:#b00020;font-weight:600}
.bubble{border-radius:.6rem;padding:.35rem .7rem;margin:.25rem 0;display:block;white-space:pre-wrap;overflow-wrap:anywhere;
unicode-bidi:isolate;width:fit-content;max-width:100%}
.user{background:#dcf8c6;color:#111;margin-left:auto} .assistant{background:#dbeafe;color:#111}
.three{display:grid;grid-template-columns:repeat(3,1fr);gap:1rem;border-bottom:1px solid #ccc;padding-bottom:1.2rem}
@media(max-width:45rem){.three{grid-template-columns:1fr}}
"""

# The rows of the tables: the key in the report, and its words.
PLAIN_NUMBERS = {
    "num_replies": "Replies",
    "median_chars": "Characters in a message (median)",
    "median_words": "Words in a message (median)",
    "messages_per_reply": "Messages in a row",
    "share_with_emoji": "Messages with emoji",
    "share_laughing": "Messages with laughter",
    "share_elongated": "Messages with held letters",
    "share_ending_bare": "Messages that end without a mark",
    "latin_share_of_letters": "Latin letters",
    "distinct_word_pairs": "Different word pairs, of all",
    "share_repeated_replies": "Replies that repeat another",
    "share_empty": "Empty replies",
    "share_looping": "Replies going in circles",
}
COPY_NUMBERS = {
    "mean_longest_run_words": "longest run of words also in training (mean)",
    "longest_run_words": "longest run of words (of all replies)",
    "share_long_runs": "runs of six words or more",
    "num_exact_copies": "whole replies of over three words",
}


def make_page(title: str, body: str, script_source: str = "'none'") -> str:
    """Return a page; `script_source` is what may run on it (nothing, or the hash of one script)."""
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {script_source}; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n{body}</html>\n"
    )


def make_bubbles(role: str, text: str) -> str:
    """Return the messages of one turn as bubbles."""
    return (
        "".join(
            f'<span class="bubble {role}" dir="auto">{html.escape(line)}</span>'
            for line in text.split("\n")
            if line.strip()
        )
        or '<span class="bubble">(empty)</span>'
    )


def make_report_page(report: Mapping[str, Any], picture_svg: str | None) -> str:
    """Return the page of the report: verdict, reasons, the picture, and the numbers. It holds no text of the chat."""
    judged = report["judged"]
    verdict = judged["verdict"]
    parts = [
        f"<h1>Does it write like its owner? <em>{html.escape(verdict.capitalize())}</em></h1>",
        f"<p>{html.escape(judged['sentence'])}</p>",
    ]
    if not judged["is_trustworthy"]:
        parts.append('<p class="warning">A check of the measurement itself failed: do not trust this page.</p>')
    if judged["reasons"]:
        parts.append("<h2>Why this verdict</h2><ul>" + "".join(map(_holds, judged["reasons"])) + "</ul>")
        told = judged["told_from_owner_by"]
        parts.append(
            f"<p>Still told from the owner by: {html.escape(', '.join(told))}.</p>"
            if told
            else "<p>Nothing measured here tells it from the owner.</p>"
        )
    if judged["warnings"]:
        parts.append("<h2>Warnings</h2><ul>" + "".join(_item(text, "warning") for text in judged["warnings"]) + "</ul>")
    if picture_svg is not None:
        parts.append(f"<figure>{picture_svg}</figure>")
    if judged["checks"]:
        parts.append("<h2>Checks that could have failed</h2><ul>" + "".join(map(_holds, judged["checks"])) + "</ul>")
    for name, measured in report["sets"].items():
        parts.append(_set_section(name, measured, is_headline=name == report["settings"]["headline_set"]))
    if "leak_probe" in report:
        parts.append(_leak_section(report["leak_probe"]))
    parts.append("<h2>How it was measured</h2>" + _table(_rows(report["settings"])))
    grey = "" if judged["is_trustworthy"] else ' class="grey"'
    return make_page(f"Style report: {verdict}", f"<body{grey}>" + "\n".join(parts) + "</body>")


def _holds(item: Mapping[str, Any]) -> str:
    mark, name = ("✓", "yes") if item["holds"] else ("✗", "no")
    return f'<li><span class="{name}">{mark}</span> {html.escape(item["text"])}</li>'


def _item(text: str, name: str) -> str:
    return f'<li class="{name}">{html.escape(text)}</li>'


def _set_section(name: str, measured: Mapping[str, Any], is_headline: bool) -> str:
    what = {"spread": "blocks spread over the whole period", "latest": "the last conversations in time"}[name]
    counts = f"{counted(measured['num_replies'], 'reply')} in {counted(measured['num_conversations'], 'conversation')}"
    heading = f"<h2>{'The' if is_headline else 'Also: the'} held-out set “{name}” ({what}): {counts}</h2>"
    verdict = f"<p>Verdict on this set: <strong>{html.escape(measured['judged']['verdict'])}</strong>. "
    verdict += html.escape(measured["judged"]["sentence"]) + "</p>"
    if "bits" not in measured:
        return heading + verdict
    writers = list(measured["writers"])
    plain = [
        [label, *(_number(measured["writers"][writer][key], key) for writer in writers)]
        for key, label in PLAIN_NUMBERS.items()
    ]
    copies = [
        [
            f"Copies: {label}",
            *(_number(measured["copies"][w][key], key) if w in measured["copies"] else "" for w in writers),
        ]
        for key, label in COPY_NUMBERS.items()
    ]
    names = [key for key in ("owner", "tuned", "base", "other") if key in measured["writers"]]
    distances = [
        [row["label"], *(_interval(row[key]) if key in row else "" for key in names), _closer(row)]
        for row in measured["habits"]
    ]
    return "".join(
        [
            heading,
            verdict,
            _table(plain + copies, ["", *writers]),
            "<h2>Distance from the owner, by habit (95 % intervals)</h2>",
            _table(distances, ["", *("owner's other half" if key == "owner" else key for key in names), "tuned"]),
            "<h2>Bits per character</h2>",
            _table([[key.replace("_", " "), _interval(value)] for key, value in measured["bits"].items()]),
        ]
    )


def _closer(row: Mapping[str, Any]) -> str:
    if not row["is_measurable"]:
        return "cannot tell"
    if row["is_closer"]:
        return "closer" if row["is_told_from_owner"] else "as the owner"
    return "farther" if row["is_farther"] else "not clearly closer"


def _number(value: float, key: str) -> str:
    if key.startswith(("share_", "latin_", "distinct_")):
        return f"{value:.1%}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.1f}"


def _interval(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _leak_section(leaks: Mapping[str, Any]) -> str:
    rows = _rows({key: value for key, value in leaks.items() if key not in ("sentence", "canaries")})
    canaries = [
        [
            f"codes planted {counted(row['num_times'], 'time')} ({row['num_canaries']})",
            f"{row['base_exposure_bits']:.1f}",
            f"{row['tuned_exposure_bits']:.1f}",
        ]
        for row in leaks.get("canaries", [])
    ]
    return (
        f"<h2>What could leak</h2><p>{html.escape(leaks['sentence'])}</p>"
        + _table(rows)
        + (_table(canaries, ["exposure in bits (chance about 1.4)", "base", "tuned"]) if canaries else "")
    )


def _rows(values: Mapping[str, Any]) -> list[list[str]]:
    return [[key.replace("_", " "), _shown(value)] for key, value in values.items()]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown}" for name, shown in _rows(value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    head = "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>" if header else ""
    body = "".join(
        f"<tr><th>{html.escape(row[0])}</th>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table>{head}{body}</table>"


def choose_examples(
    exchanges: Sequence[Exchange], base: Sequence[str], tuned: Sequence[str], num_shown: int
) -> list[dict[str, Any]]:
    """Return `num_shown` contexts with the real reply and both models', evenly taken.

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
    """Return the private page of examples: context, real reply, base, tuned, and the words used too much or too little."""
    parts = [
        "<h1>Replies side by side</h1>",
        "<p>Private: this page shows the chat itself. Left what was really written, then the base model, then the "
        "tuned model.</p>",
    ]
    for example in examples:
        context: Messages = example["context"]
        parts.append(f"<h2>Conversation {example['conversation'] + 1:,}</h2>")
        parts.append("".join(make_bubbles(message["role"], message["content"]) for message in context))
        columns = "".join(
            f"<div><strong>{name}</strong>{make_bubbles('assistant', example[key])}</div>"
            for key, name in (("owner", "really written"), ("base", "base model"), ("tuned", "tuned model"))
        )
        parts.append(f'<div class="three">{columns}</div>')
    for key, name in (("overused", "more often than the owner"), ("underused", "less often than the owner")):
        words = "".join(f'<bdi dir="auto">{html.escape(word)}</bdi>, ' for word in key_words[key]).removesuffix(", ")
        parts.append(f"<h2>Words the tuned model uses {name}</h2><p>{words or 'none'}</p>")
    return make_page("Replies side by side (private)", "<body>" + "\n".join(parts) + "</body>")
