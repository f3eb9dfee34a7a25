"""The ledger, which counts every parsed message once, as kept or under the reason it was dropped; and the report.

The ledger writes each dropped message with its reason and checks the totals at the end. Which messages are dropped is left
to `conversations`, where the files lie to the script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from json.encoder import encode_basestring
from typing import IO, TYPE_CHECKING, Any

from export_survey import ExportSurvey
from merged_exports import Chat
from message_filters import DROP_REASONS

from common.script import counted, printable

if TYPE_CHECKING:  # the digest needs no redaction, whose patterns take 60 ms to compile
    from redaction import Redactor

REPORT_FORMAT = 1

# WhatsApp exports at most about this many messages, without and with media (its help pages, which round).
EXPORT_CAPS = (40_000, 10_000)
CAP_TOLERANCE = 0.01  # "about"

# How many answers (replies to something; what opens a conversation cannot be measured) are needed. Of a short chat a fifth is
# held out, the style report wants 50 of those, and leaves out the long ones that training saw too: about 300 in all. 50 show
# the length of replies only, 300 to 500 show emoji and laughter too.
NUM_ANSWERS_SKETCH = 300
NUM_ANSWERS_ENOUGH = 2_500

NUM_EXAMPLES = 20  # printed for one reason; dropped_messages.jsonl has all
NUM_EXAMPLE_CHARS = 100

# Reasons that depend on other messages or on flags. Those that depend on the text alone are in message_filters.
DUPLICATE = "duplicate"
OUTSIDE_DATES = "outside_dates"
OVER_CAP = "over_cap"
NO_REPLY_IN_CONVERSATION = "no_reply_in_conversation"
AFTER_LAST_REPLY = "after_last_reply"
REASONS = {
    **DROP_REASONS,
    DUPLICATE: "also in another export of the same chat",
    OUTSIDE_DATES: "outside --since and --until",
    OVER_CAP: "older than the latest of --max-messages-per-chat",
    NO_REPLY_IN_CONVERSATION: "a conversation in which the imitated person wrote nothing",
    AFTER_LAST_REPLY: "unanswered messages at the end of a conversation",
}


class LedgerError(AssertionError):
    """The totals do not add up: a bug of this program."""


class Ledger:
    """Counts kept and dropped messages, and writes the dropped ones to `dropped_file`, one JSON a line."""

    def __init__(self, dropped_file: IO[str], shown_reason: str | None = None) -> None:
        """Collect examples for `shown_reason`, or one for each reason when it is "all"."""
        self.num_kept = 0
        self.num_dropped: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}  # by reason
        self._dropped_file = dropped_file
        self._shown_reason = shown_reason

    def keep(self, num_messages: int) -> None:
        """Count messages that were written to the training data."""
        self.num_kept += num_messages

    def drop(self, reason: str, chat: str, sent_at: datetime, sender: str | None, text: str) -> None:
        """Count and write a message that is left out; `sender` and `text` are redacted already."""
        self.num_dropped[reason] += 1
        shown_sender = "null" if sender is None else encode_basestring(sender)
        self._dropped_file.write(  # what json.dumps returns with ensure_ascii=False, in half the time
            f'{{"reason": "{reason}", "chat": {encode_basestring(chat)}, "sent_at": "{sent_at.isoformat()}", '
            f'"sender": {shown_sender}, "text": {encode_basestring(text)}}}\n'
        )
        if self._shown_reason in (reason, "all"):
            examples = self.examples.setdefault(reason, [])
            if len(examples) < (NUM_EXAMPLES if self._shown_reason == reason else 1):
                examples.append(text)

    def check(self, num_parsed: int) -> None:
        """Raise LedgerError unless every parsed message was counted exactly once."""
        num_accounted = self.num_kept + self.num_dropped.total()
        if num_accounted != num_parsed:
            raise LedgerError(f"{num_parsed:,} messages were read but {num_accounted:,} are accounted for")

    def totals(self) -> dict[str, object]:
        """Return the counts for the report."""
        return {
            "parsed": self.num_kept + self.num_dropped.total(),
            "kept": self.num_kept,
            "dropped": dict(self.num_dropped.most_common()),
        }

    def table(self) -> list[str]:
        """Return the lines of the printed table, the commonest reason first, with the examples asked for."""
        num_parsed = self.num_kept + self.num_dropped.total()
        lines = [f"  {'kept':<24} {self.num_kept:>9,} {self.num_kept / num_parsed:>6.1%}"]
        for reason, number in self.num_dropped.most_common():
            lines.append(f"  {reason:<24} {number:>9,} {number / num_parsed:>6.1%}  {REASONS[reason]}")
            lines += [f"      {printable(text)[:NUM_EXAMPLE_CHARS]}" for text in self.examples.get(reason, [])]
        return lines


def make_report(
    chats: Sequence[Chat],
    names: Mapping[str, str],
    titles: Mapping[str, str],
    imitated: Collection[str],
    unknown_placeholders: Mapping[str, int],
    ledger: Ledger,
    conversations: Mapping[str, int],
    redactor: Redactor | None,
) -> dict[str, Any]:
    """Return the report: what became of the messages, what was found in each export, and advice.

    `names` and `titles` hold what is written for each sender and each chat's title; `conversations` are the totals of the
    writer.
    """
    redact = redactor.redact if redactor else str
    surveys = [survey for chat in chats for survey in chat.surveys]
    capped_exports = [redact(survey.file.path.name) for survey in surveys if is_at_cap(survey.num_messages)]
    return {
        "format": REPORT_FORMAT,
        "person": sorted({names[sender] for sender in imitated}),
        "messages": ledger.totals(),
        "conversations": conversations,
        "redactions": dict(redactor.counts) if redactor else None,
        "unknown_placeholders": {redact(body): number for body, number in unknown_placeholders.items()},
        "exports": [
            {"file": redact(survey.file.path.name)} | _describe_export(titles[chat.title], survey, imitated, names)
            for chat in chats
            for survey in chat.surveys
        ],
        "advice": advise(conversations["num_replies"] - conversations["num_openers"], capped_exports),
    }


def _describe_export(
    chat: str, survey: ExportSurvey, imitated: Collection[str], names: Mapping[str, str]
) -> dict[str, object]:
    """Return the part of the report about one export."""
    export = survey.export
    people = sorted(survey.participants.items(), key=lambda item: -item[1].num_messages)
    everybody = [*survey.participants.values(), *survey.assistants.values()]
    return {
        "chat": chat,
        "format": export.format_description,
        "date_order": export.date_order,
        "is_order_proven": export.is_order_proven,
        "num_messages": survey.num_messages,
        "num_notices": survey.num_messages - sum(person.num_messages for person in everybody),
        "num_continuation_lines": export.num_continuation_lines,
        "num_lines_before_the_first_message": export.num_orphan_lines,
        "num_lines_like_headers_of_another_format": export.num_foreign_header_lines,
        "num_bad_bytes": export.num_bad_bytes,
        "warnings": export.warnings,
        "participants": [
            {
                "name": names[sender],
                "is_imitated": sender in imitated,
                "num_messages": person.num_messages,
                "first": person.first.isoformat(),
                "last": person.last.isoformat(),
            }
            for sender, person in people
        ],
    }


def is_at_cap(num_messages: int) -> bool:
    """Tell whether an export has about as many messages as WhatsApp writes at most, so that older ones are missing.

    >>> is_at_cap(39_870), is_at_cap(31_000)
    (True, False)
    """
    return any(abs(num_messages - cap) <= cap * CAP_TOLERANCE for cap in EXPORT_CAPS)


def advise(num_answers: int, capped_exports: Sequence[str]) -> list[str]:
    """Return sentences that say whether the data is enough and how to get more.

    `num_answers` are the imitated person's replies without those that open a conversation.
    """
    advice = []
    if num_answers < NUM_ANSWERS_SKETCH:
        advice.append(
            f"{counted(num_answers, 'answer')} {'is' if num_answers == 1 else 'are'} too few to tell afterwards whether it worked; "
            f"{NUM_ANSWERS_SKETCH:,} give a sketch of the style, {NUM_ANSWERS_ENOUGH:,} the whole: add chats of the same person."
        )
    elif num_answers < NUM_ANSWERS_ENOUGH:
        advice.append(
            f"{num_answers:,} answers give a sketch of the style (length, endings, frequent words); from "
            f"{NUM_ANSWERS_ENOUGH:,} on emoji and laughter can be judged too: add chats of the same person if there are any."
        )
    else:
        advice.append(f"{num_answers:,} answers are enough to learn the style and to judge it.")
    advice += [
        f"{name} has as many messages as WhatsApp exports at most: older ones are missing; an older export of the same "
        "chat given beside it is merged without duplicates."
        for name in capped_exports
    ]
    return advice
