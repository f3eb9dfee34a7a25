"""Write a made-up WhatsApp export: two people, seven months, Hebrew with some English. Every run gives the same bytes.

Reads nothing. Writes one file in the format of an Android phone with Hebrew settings. Like real exports it also
contains notices, media lines, deleted and edited messages, links, calls, code, and numbers that must not be learnt.
Run:    python3 src/demo/make_sample_chat.py --output .demo/WhatsappChat.txt
"""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta
from pathlib import Path

from chat_grammar import NOAM, RUTH, write_conversation

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # for `common`

from common.command_line import make_parser, whole_number
from common.private_files import replacing
from common.script import run_script

NUM_CONVERSATIONS = 600  # about 4,000 messages; an epoch of the demo takes less than half a minute
FIRST_DAY = datetime(2024, 3, 3)
SEED = 0

EXTRA_RATE = 0.08  # share of turns followed by one of the lines below
EDITED_RATE = 0.01
EDITED_MARK = " <ההודעה נערכה>"

# Lines with nothing to learn, or with what must not be learnt. All invented; 0000 is replaced by random digits.
EXTRA_MESSAGES = (
    "<המדיה לא נכללה>",
    "<המדיה לא נכללה>",
    "<המדיה לא נכללה>",
    "הודעה זו נמחקה",
    "שיחה קולית שלא נענתה",
    "null",
    "https://example.com/watch?v=x0000",
    "תסתכלו https://example.org/articles/0000 מעניין",
    "מיקום: https://maps.google.com/?q=32.070000,34.770000",
    "המספר של דנה הוא 054-0000-0000",
    "המייל שלי user0000@example.com",
    "הקוד לכניסה הוא 0000",
    "העברתי לחשבון 12-345-00000000",
    "לקנות:\nחלב\nלחם\nשש ביצים\n\nועוד משהו מתוק",
    "```\nfor i in range(0000):\n    print(i)\n```",
)
NOTICES = (
    "ההודעות והשיחות מוצפנות מקצה-לקצה. לאף אחד מחוץ לצ'אט זה, גם לא ל-WhatsApp, אין אפשרות לקרוא אותן או להאזין להן.",
    "קוד האבטחה עם Ruth שונה. יש להקיש לקבלת פרטים נוספים.",
)


def sample_export(num_conversations: int, seed: int) -> str:
    """Return the text of the export."""
    rng = random.Random(seed)
    lines = [_line(FIRST_DAY, None, NOTICES[0])]
    for number in range(num_conversations):
        start = _start_of(number, rng)
        if number == num_conversations // 2:
            lines.append(_line(start, None, NOTICES[1]))
        lines += _conversation_lines(start, rng)
    return "\n".join(lines) + "\n"


def _start_of(number: int, rng: random.Random) -> datetime:
    """Return the start of a conversation: three a day, hours apart."""
    day, part_of_day = divmod(number, 3)
    return FIRST_DAY + timedelta(days=day, hours=(8, 13, 19)[part_of_day], minutes=rng.randint(0, 90))


def _conversation_lines(sent_at: datetime, rng: random.Random) -> list[str]:
    lines = []
    for name, messages in write_conversation((NOAM, RUTH), rng):
        for message in messages:
            sent_at += timedelta(seconds=rng.randint(2, 40))
            edited_mark = EDITED_MARK if rng.random() < EDITED_RATE else ""
            lines.append(_line(sent_at, name, message + edited_mark))
        if rng.random() < EXTRA_RATE:
            digits = str(rng.randint(1000, 9999))
            lines.append(_line(sent_at, name, rng.choice(EXTRA_MESSAGES).replace("0000", digits)))
        sent_at += timedelta(seconds=rng.randint(20, 300))
    return lines


def _line(sent_at: datetime, sender: str | None, text: str) -> str:
    """Return one message under its header, as `30.9.2024, 18:15 - Ruth: hello`; a notice has no sender."""
    header = f"{sent_at.day}.{sent_at.month}.{sent_at.year}, {sent_at:%H:%M} - "
    return header + (text if sender is None else f"{sender}: {text}")


def main() -> int:
    """Write the export to the file named on the command line."""
    parser = make_parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="file to write the export to")
    parser.add_argument("--conversations", type=whole_number(1), default=NUM_CONVERSATIONS, help="default: %(default)s")
    arguments = parser.parse_args()

    text = sample_export(arguments.conversations, SEED)
    with replacing(arguments.output) as file:
        file.write(text)
    print(f"made-up export of {NOAM.name} and {RUTH.name}: {text.count(chr(10)):,} lines")
    print(f"written: {arguments.output}")
    return 0


if __name__ == "__main__":
    run_script(main)
