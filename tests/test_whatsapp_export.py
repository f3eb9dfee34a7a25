"""One made-up chat in every header format phones write leads to one expected result; and what is no header stays text."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from linear_time import assert_linear
from whatsapp_export import ExportError, parse_export
from whatsapp_header_families import FAMILIES

STAGE_DIR = Path(__file__).resolve().parents[1] / "src/data_preprocessing"

LRM = "\N{LEFT-TO-RIGHT MARK}"

TIMES = [
    datetime(2022, 9, 30, 18, 15, 42),
    datetime(2022, 9, 30, 18, 15, 43),
    datetime(2022, 9, 30, 23, 59, 59),
    datetime(2022, 10, 1, 0, 0, 1),
    datetime(2022, 10, 2, 9, 5, 7),
    datetime(2022, 10, 13, 12, 30, 0),
    datetime(2022, 10, 14, 11, 59, 8),
    datetime(2022, 11, 25, 1, 1, 1),
]
CHAT = [
    (None, "Rut created group"),
    ("רות כהן", "היי, מה נשמע? 👨‍👩‍👧"),
    ("Dan", "first\n\n10:30 - 12:00: lunch\n  indented"),
    ("Dan", "9/30 - not a header: really"),
    ("+972 54-123-4567", "a: b"),
    ("Dan", ""),
    ("Rut 12/12", "\u2028one\u0085message\x0b\x0c\x1c"),
    ("רות כהן", "1/1/1/1 and [18:15, 30/9/2022] Moshe: pasted"),
]


def write(path: Path, content: str | bytes) -> Path:
    if isinstance(content, str):
        content = content.encode("utf-8")
    path.write_bytes(content)
    return path


def rendered(family, chat, times, end="\n"):
    return "".join(
        family.render(at) + (text if sender is None else f"{sender}: {text}") + end
        for at, (sender, text) in zip(times, chat, strict=True)
    )


def expected(family, chat, times):
    return [
        (at if family.has_seconds else at.replace(second=0), sender, text)
        for at, (sender, text) in zip(times, chat, strict=True)
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_one_chat_in_every_format_gives_one_result(tmp_path, name):
    family = FAMILIES[name]
    export = parse_export(write(tmp_path / "chat.txt", rendered(family, CHAT, TIMES)))
    assert list(export) == expected(family, CHAT, TIMES)
    assert (export.num_messages, export.num_continuation_lines, export.num_orphan_lines) == (8, 3, 0)
    assert export.is_order_proven or "short" in name
    assert ("iOS" in export.format_description) == ("iOS" in name)


@pytest.mark.parametrize("name", ["en-GB", "ar", "iOS en-US", "iOS vi"])
def test_line_ends_of_windows_inside_and_between_messages(tmp_path, name):
    family = FAMILIES[name]
    content = rendered(family, CHAT, TIMES, end="\r\n")
    assert list(parse_export(write(tmp_path / "chat.txt", content))) == expected(family, CHAT, TIMES)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=40).filter(
    lambda text: not text.startswith(LRM)
)
moments = st.datetimes(datetime(2012, 1, 1), datetime(2025, 12, 31)).map(lambda at: at.replace(microsecond=0))


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.lists(
        st.tuples(moments, st.sampled_from(["Dan", "רות", "~ Noa"]), texts, texts), min_size=1, max_size=6
    )
)
def test_rendered_messages_are_parsed_back(tmp_path, name, messages):
    family = FAMILIES[name]
    times = [TIMES[0], *(at for at, *_ in messages), TIMES[-2]]  # the first and last date prove their order
    # `x` keeps the second line from being a header of this very format.
    chat = [("Dan", "hi"), *((sender, f"{first}\nx{second}") for _, sender, first, second in messages), ("Dan", "bye")]
    content = rendered(family, chat, times)
    chat = [(sender.removeprefix("~ "), text) for sender, text in chat]
    assert list(parse_export(write(tmp_path / "chat.txt", content))) == expected(family, chat, times)


GB, IOS = FAMILIES["en-GB"], FAMILIES["iOS en-GB"]
A_TIME = datetime(2022, 9, 30, 18, 15)


def parse_bodies(tmp_path, *bodies, family=GB):
    """Return (sender, text) of messages whose lines go on with `bodies` after the header."""
    content = "".join(f"{family.render(A_TIME)}{body}\n" for body in bodies)
    return [(message.sender, message.text) for message in parse_export(write(tmp_path / "chat.txt", content))]


def test_a_header_never_spans_two_lines(tmp_path):
    content = "30 Sep 2013, 22:10 - Rut: hi\n30\nSep 2013, 22:11 - Dan: no\n30 Sep 2013, 22:12 - Dan: yes\n"
    messages = parse_export(write(tmp_path / "chat.txt", content))
    assert [(message.sender, message.text) for message in messages] == [
        ("Rut", "hi\n30\nSep 2013, 22:11 - Dan: no"),
        ("Dan", "yes"),
    ]


@pytest.mark.parametrize(
    ("body", "sender", "text"),
    [
        ("Rut: hi", "Rut", "hi"),
        ("Rut: X: hi", "Rut", "X: hi"),
        ("Rut:", "Rut", ""),
        ("Rut: ", "Rut", ""),
        ("Rut - [VIP] 12/12: hi", "Rut - [VIP] 12/12", "hi"),
        ("~\N{NARROW NO-BREAK SPACE}Rut: hi", "Rut", "hi"),
        ("~ Rut: hi", "Rut", "hi"),
        ("\u202a+972 54\u2011123\u20114567\u202c: hi", "+972 54\u2011123\u20114567", "hi"),
        ("\u2068Rut 👩‍👩‍👦\u2069: hi", "Rut 👩‍👩‍👦", "hi"),
        ("Rut: null", "Rut", "null"),
        ("Rut: <Media omitted>", "Rut", "<Media omitted>"),
        ('מנכ"ל החברה: צה"ל', 'מנכ"ל החברה', 'צה"ל'),
        ('Yossi 5": he said "hi"', 'Yossi 5"', 'he said "hi"'),
        ("Rut:  two spaces ", "Rut", " two spaces "),
        ("Dan added Rut", None, "Dan added Rut"),
        ("", None, ""),
        (
            'Dan changed the subject from "Trip: Eilat" to "A: B"',
            None,
            'Dan changed the subject from "Trip: Eilat" to "A: B"',
        ),
        ("You created group “A: B”", None, "You created group “A: B”"),
        ('דן החליף/ה את נושא הקבוצה מ"חברים: טיול" ל"בית"', None, 'דן החליף/ה את נושא הקבוצה מ"חברים: טיול" ל"בית"'),
        ('Ana cambió el asunto de "A: B" a "C"', None, 'Ana cambió el asunto de "A: B" a "C"'),
    ],
)
def test_sender_and_text(tmp_path, body, sender, text):
    assert parse_bodies(tmp_path, body) == [(sender, text)]
    assert parse_bodies(tmp_path, "Rut: first", body) == [("Rut", "first"), (sender, text)]


@pytest.mark.parametrize(
    ("sender", "notice"),
    [
        ("Family", "Messages and calls are end-to-end encrypted. No one outside of this chat can read them."),
        ("Trip: Eilat", "Dan created this group"),
        ("Dan", "Dan added Rut"),
        ("You", "You were added"),
        ("Dan", "Dan changed the group name to “A: B”"),
        ("Family", "רות צורפה לקבוצה"),
        ("Family", "ההודעות והשיחות מוצפנות מקצה-לקצה."),
        ("דן", "דן יצא/ה"),
        ("Familie", "Anna hat Bernd hinzugefügt"),
        ("Familia", "Ana añadió a Luis"),
    ],
)
def test_notices_that_iphones_attribute_to_a_group_or_actor_have_no_sender(tmp_path, sender, notice):
    assert parse_bodies(tmp_path, f"{sender}: {LRM}{notice}", family=IOS) == [(None, LRM + notice)]


@pytest.mark.parametrize(
    "placeholder",
    [
        "image omitted",
        "This message was deleted.",
        "You deleted this message.",
        "Missed voice call, \u200eTap to call back",
        "Location: https://maps.google.com/?q=32.1,34.8",
        "POLL:",
        "<attached: 00000042-PHOTO-Dan added Rut.jpg>",
        "removed items.pdf • \u200e2 pages \u200edocument omitted",
        "התמונה הושמטה",
        "הודעה זו נמחקה",
        "Dit bericht is verwijderd",
        "Вы удалили данное сообщение",
        "Ce message a été supprimé",
    ],
)
def test_placeholders_of_iphones_keep_their_sender_and_mark(tmp_path, placeholder):
    assert parse_bodies(tmp_path, f"Rut: {LRM}{placeholder}", family=IOS) == [("Rut", LRM + placeholder)]


def test_only_iphones_mark_notices_and_only_at_the_start_of_a_text(tmp_path):
    assert parse_bodies(tmp_path, f"Rut: {LRM}Dan left early") == [("Rut", f"{LRM}Dan left early")]
    bodies = ["Rut: hi", f"Rut: look: {LRM}Dan left early"]
    assert parse_bodies(tmp_path, *bodies, family=IOS)[1] == ("Rut", f"look: {LRM}Dan left early")


@pytest.mark.parametrize("unit", ["hat ", "יצר", "ha creato", "changed the subject ", "heeft ", "“", ": \u200e"])
def test_notices_are_recognised_in_linear_time(tmp_path, unit):
    def parse(length):
        for family in (GB, IOS):
            parse_bodies(tmp_path, f"Rut: {LRM}" + unit * length, unit * length + ": hi", family=family)

    assert_linear(parse, 50_000)


def test_the_encryption_notice_needs_no_mark(tmp_path):
    notice = "Messages and calls are end-to-end encrypted. No one outside of this chat can read them."
    assert parse_bodies(tmp_path, f"Family: {notice}", "Rut: hi", family=IOS) == [(None, notice), ("Rut", "hi")]


def test_a_mark_before_the_bracket_is_no_part_of_the_message(tmp_path):
    path = write(
        tmp_path / "chat.txt", f"{IOS.render(A_TIME)}Rut: hi\n{LRM}{IOS.render(A_TIME)}Rut: {LRM}image omitted\n"
    )
    assert [message.text for message in parse_export(path)] == ["hi", f"{LRM}image omitted"]


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (own, other)
        for own in ("en-GB", "en-US", "he", "iOS en-GB", "iOS en-US", "ko", "vi", "iOS before 2017")
        for other in ("en-IN", "de", "nl", "iOS es-MX", "iOS he", "vi", "ko short", "iOS before 2017")
        if own != other and (own, other) != ("en-US", "en-IN")  # which differ in the order of dates alone
    ],
)
def test_a_pasted_transcript_of_another_format_stays_text(tmp_path, own, other):
    pasted = "\n".join(f"{FAMILIES[other].render(at)}Moshe: pasted" for at in TIMES)
    chat = [("Rut", "look:\n" + pasted), *CHAT[1:]]
    export = parse_export(write(tmp_path / "chat.txt", rendered(FAMILIES[own], chat, TIMES)))
    assert list(export) == expected(FAMILIES[own], chat, TIMES)
    assert export.num_foreign_header_lines == len(TIMES)


def test_a_web_copy_is_text_and_impossible_dates_are_text(tmp_path):
    lines = "[18:15, 30/9/2022] Moshe: hi\n31/02/2022, 18:15 - Moshe: hi\n30/09/2022, 25:15 - Moshe: hi"
    path = write(tmp_path / "chat.txt", rendered(GB, [("Rut", f"look\n{lines}"), *CHAT[1:]], TIMES))
    messages = list(parse_export(path))
    assert messages[0].text == f"look\n{lines}"
    assert len(messages) == len(CHAT)


def test_lines_before_the_first_message_are_counted(tmp_path):
    export = parse_export(write(tmp_path / "chat.txt", "half a message\nmore\n" + rendered(GB, CHAT, TIMES)))
    assert len(list(export)) == len(CHAT)
    assert export.num_orphan_lines == 2


def dates(tmp_path, texts, template="{}, 18:15 - Rut: hi\n", **options):
    path = write(tmp_path / "chat.txt", "".join(template.format(text) for text in texts))
    export = parse_export(path, **options)
    return [f"{message.sent_at:%d.%m.%Y}" for message in export], export


@pytest.mark.parametrize(
    ("texts", "order", "is_proven"),
    [
        (["01/02/2022", "13/02/2022"], "day/month/year", True),
        (["01/02/2022", "02/13/2022"], "month/day/year", True),
        (["01/02/2022", "02/02/2022", "03/02/2022"], "day/month/year", False),  # three days, not three months
        (["02/01/2022", "02/02/2022", "02/03/2022"], "month/day/year", False),
        (["01/02/2022"], "day/month/year", False),
        (["2022/01/02"], "year/month/day", True),
        (["1.2.2024", "2.1.2024"], "day/month/year", True),  # dots settle it, also where the clock was set back
        (["1.2.24"], "day/month/year", True),
        (["9.30.2022", "10.1.2022"], "month/day/year", False),  # no country writes so
        (["22-12-30", "22-12-31"], "year/month/day", True),
        (["22-09-30", "23-01-02"], "year/month/day", True),
        (["13/01/2022", "12/13/2022", "14/01/2022", "15/01/2022"], "day/month/year", True),  # one was pasted
    ],
)
def test_order_of_day_and_month(tmp_path, texts, order, is_proven):
    _, export = dates(tmp_path, texts)
    assert (export.date_order, export.is_order_proven) == (order, is_proven)
    assert any("guess" in warning for warning in export.warnings) == (not is_proven)


def test_american_clock_without_zeros_is_month_first_when_nothing_tells(tmp_path):
    _, export = dates(tmp_path, ["1/2/22"], template="{}, 6:15 PM - Rut: hi\n")
    assert (export.date_order, export.is_order_proven) == ("month/day/year", False)
    _, export = dates(tmp_path, ["1/2/2022"], template="{}, 6:15 p. m. - Rut: hi\n")
    assert export.date_order == "day/month/year"


def test_the_user_settles_the_order(tmp_path):
    assert dates(tmp_path, ["01/02/2022"], day_first=True)[0] == ["01.02.2022"]
    found, export = dates(tmp_path, ["01/02/2022"], day_first=False)
    assert found == ["02.01.2022"]
    assert export.is_order_proven
    with pytest.raises(ExportError, match="cannot be month/day/year"):
        dates(tmp_path, ["30/09/2022"], day_first=False)


def test_file_order_is_kept_when_the_clock_was_set_back(tmp_path):
    found, _ = dates(tmp_path, ["13/02/2022", "01/02/2022", "14/02/2022"])
    assert found == ["13.02.2022", "01.02.2022", "14.02.2022"]


def test_warns_of_years_no_phone_had(tmp_path):
    _, export = dates(tmp_path, ["13/02/1970", "13/02/2022"])
    assert any("from 1970 to 2022" in warning for warning in export.warnings)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("milk\neggs\n", "no WhatsApp messages found"),
        ("<html><body>30/09/2022, 18:15</body></html>", "is an HTML page"),
        ('{"messages": [{"date": "2022-09-30T18:15:42"}]}', "no WhatsApp messages found"),
        ("2022-09-30 18:15:42,123 INFO started\n" * 9, "no WhatsApp messages found"),
        ("9/30/22, 6:15 XX - Rut: hi\n9/30/22, 6:16 YY - Rut: hi\n", "line 1: the word beside its 12-hour clock"),
        ("30 Sep, 18:15 - Rut: hi\n", "line 1: dates without a year"),
        ("30/09, 18:15 - Rut: hi\n", "line 1: dates without a year"),
        ("22:10, Sep 30 - Rut: hi\n", "line 1: dates without a year"),
        ("30 Sep 2013, 18:15 - Rut: hi\n30 Sep, 18:15 - Rut: hi\n", "line 2: dates without a year"),
        ("1401/07/08, 18:15 - Rut: hi\n", "another calendar"),
        ("99/99/2022, 99:99 - Rut: hi\n", "none of its dates and times exists"),
    ],
)
def test_refuses_what_it_cannot_read(tmp_path, content, problem):
    with pytest.raises(ExportError, match=problem) as refusal:
        next(iter(parse_export(write(tmp_path / "chat.txt", content))))
    assert "Rut" not in str(refusal.value)
    assert "eggs" not in str(refusal.value)


def test_a_word_beside_a_24_hour_clock_is_none_of_a_12_hour_clock(tmp_path):
    found, _ = dates(tmp_path, ["30.09.2022"], template="{}, zeg. 18:15 - Rut: hi\n")
    assert found == ["30.09.2022"]


HEADER = "30/09/2022, 18:15 - Rut: hi\n"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=400),
    prefix=st.sampled_from([b"", HEADER.encode(), b"PK\x03\x04", b"\xff\xfe", b"[1/1/22, "]),
)
@example(content=b"\xff\xfe\x00\x00", prefix=b"")
def test_whatever_the_bytes_the_only_error_is_its_own(tmp_path, content, prefix):
    try:
        messages = list(parse_export(write(tmp_path / "chat.txt", prefix + content)))
    except ExportError as error:
        assert str(error)
    else:
        assert messages


header_like = st.lists(
    st.sampled_from(
        [*"0123456789/.-:[], \n~", "30/09/2022", ", ", "18:15", " - ", "Rut: ", "[", "] ", "PM", " h ", "г.", LRM, "٣"]
    ),
    max_size=60,
).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=header_like)
def test_no_line_is_lost(tmp_path, content):
    path = write(tmp_path / "chat.txt", HEADER + content)
    try:
        export = parse_export(path)
        messages = list(export)
    except ExportError:
        return
    num_lines = len((HEADER + content).removesuffix("\n").split("\n"))
    assert export.num_messages == len(messages)
    assert export.num_messages + export.num_continuation_lines + export.num_orphan_lines == num_lines


@pytest.mark.parametrize(
    "unit", ["1", "[", " ", "1/", "1/1/1/1 ", "9:", "30/09/2022, ", "\u200e", "a" * 12, "1. ", "[[1/1/22, 1:1"]
)
@pytest.mark.parametrize("is_one_line", [True, False])
def test_repetitive_lines_take_linear_time(tmp_path, unit, is_one_line):
    def parse(length):
        content = HEADER + (unit * length if is_one_line else f"{unit * 20}\n" * (length // 20))
        assert len(list(parse_export(write(tmp_path / "chat.txt", content)))) == 1

    assert_linear(parse, 60_000)


def test_a_message_of_100000_lines(tmp_path):
    export = parse_export(write(tmp_path / "chat.txt", HEADER + "12 more\n" * 100_000))
    assert len(list(export)) == 1
    assert export.num_continuation_lines == 100_000


def test_memory_does_not_grow_with_the_file(tmp_path):
    script = (
        f"import sys; sys.path[:0] = [{str(STAGE_DIR)!r}, {str(STAGE_DIR.parent)!r}]\n"
        "from whatsapp_export import parse_export\n"
        "print(sum(1 for _ in parse_export(sys.argv[1])))\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    a_day = "".join(
        f"[{{day}}/9/2022, {hour:02}:{minute:02}:{minute * 7 % 60:02}] Rut: message\r\n"
        for hour in range(24)
        for minute in range(60)
    )
    path = write(tmp_path / "chat.txt", "".join(a_day.replace("{day}", str(day)) for day in range(1, 31)) * 2)
    printed = subprocess.run(
        [sys.executable, "-S", "-c", script, path], capture_output=True, text=True, check=True
    ).stdout
    num_messages, peak_kib = map(int, printed.split())
    assert num_messages == 2 * 30 * 24 * 60
    assert peak_kib < 40 * 1024


def test_can_be_iterated_as_an_iterator(tmp_path):
    export = parse_export(write(tmp_path / "chat.txt", HEADER * 3))
    assert next(export).sender == "Rut"
    assert len(list(export)) == 2
