"""What one line does not tell, the whole file does: exports after reported cases, and others of the same kinds."""

from __future__ import annotations

import json
import zipfile
from datetime import date, datetime, timedelta
from pathlib import Path

import load_whatsapp
import pytest
from whatsapp_export import ExportError, parse_export

from common.script import ScriptError

CASES = Path(__file__).with_name("cases")
LRM = "\u200e"
START = datetime(2024, 3, 12, 21, 30)


def write(path: Path, lines: list[str] | str) -> Path:
    path.write_text(lines if isinstance(lines, str) else "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def android(*texts, start=START, form="%d.%m.%Y, %H:%M - "):
    return [f"{start + timedelta(minutes=number):{form}}{text}" for number, text in enumerate(texts)]


def iphone(*texts, start=START, form="[%d.%m.%y, %H:%M:%S] "):
    return android(*texts, start=start, form=form)


def parsed(path):
    return [(message.sender, message.text) for message in parse_export(path)]


def senders(path):
    return {message.sender for message in parse_export(path)}


@pytest.fixture
def prepare(tmp_path, capsys):
    """Run the stage; return the turns as (role, words), the report and what was shown."""

    def run(*exports, imitate="Gil", flags=()):
        data_path = tmp_path / "out/data.jsonl"
        load_whatsapp.main([*map(str, exports), "--imitate", imitate, "--path-to-data", str(data_path), *flags])
        conversations = [json.loads(line) for line in data_path.read_text(encoding="utf-8").splitlines()]
        turns = [(turn["role"], turn["content"]) for talk in conversations for turn in talk["messages"]]
        report = json.loads((data_path.parent / "preprocessing_report.json").read_text(encoding="utf-8"))
        output = capsys.readouterr()
        return turns, report, output.out + output.err

    return run


def words(turns):
    return [line for _, content in turns for line in content.split("\n")]


# ---- Who writes ------------------------------------------------------------------------------------------------------


def test_no_space_after_the_colon():
    messages = parsed(CASES / "001-no-space-after-colon/chat.txt")
    assert [sender for sender, _ in messages] == ["Dana", "Gil", "Dana", "Gil", "Gil", "Dana"]
    assert ("Gil", "hi there") in messages and ("Gil", "note: bring bread") in messages


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (android("דנה:מה קורה", "דנה: הי", "גיל: טוב"), [("דנה", "מה קורה"), ("דנה", "הי"), ("גיל", "טוב")]),
        (
            iphone("+972 50-555:x", "+972 50-555: y", "Gil:https://a.bc"),
            [("+972 50-555", "x"), ("+972 50-555", "y"), (None, "Gil:https://a.bc")],
        ),
        (
            android("Ana:a", "Ana:b: c", "Ana:d", "Luis:e", "Luis:f", "Luis:g"),
            [("Ana", "a"), ("Ana", "b: c"), ("Ana", "d"), ("Luis", "e"), ("Luis", "f"), ("Luis", "g")],
        ),
    ],
)
def test_no_space_after_the_colon_in_other_files(tmp_path, lines, expected):
    assert parsed(write(tmp_path / "chat.txt", lines)) == expected


@pytest.mark.parametrize("times", [1, 2, 4])
def test_no_space_after_the_bracket(tmp_path, times):
    lines = iphone("Dana: a", "Gil: b", "Dana: c", "Gil:d")
    lines[4 - times :] = [line.replace("] ", "]") for line in lines[4 - times :]]
    assert parsed(write(tmp_path / "chat.txt", lines)) == [("Dana", "a"), ("Gil", "b"), ("Dana", "c"), ("Gil", "d")]


def test_tabs_between_the_parts_of_a_header(tmp_path):
    lines = [line.replace(" - ", "\t-\t") for line in android("Dana: a", "Gil: b")]
    assert parsed(write(tmp_path / "chat.txt", lines)) == [("Dana", "a"), ("Gil", "b")]


def test_a_colon_in_the_imitated_name(prepare):
    path = CASES / "008-colon-in-own-name/chat.txt"
    assert senders(path) == {"Gil: private", "Dana"}
    turns, report, _ = prepare(path, imitate="Gil: private")
    assert report["person"] == ["Gil: private"]
    assert not any(line.startswith("private: ") for line in words(turns))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Work: Dana", "Work: Gil"], {"Work: Dana", "Work: Gil"}),
        (["עבודה: דנה", "רות"], {"עבודה: דנה", "רות"}),
        (["Work: Dana: mobile", "Gil"], {"Work: Dana: mobile", "Gil"}),
        (["Dana - home", "Gil - work"], {"Dana - home", "Gil - work"}),
        (["Dana\nCohen", "Gil"], {"Dana\nCohen", "Gil"}),
        (["Gil", "Dana"], {"Gil", "Dana"}),
    ],
)
@pytest.mark.parametrize("phone", [android, iphone])
def test_names_of_several_parts(tmp_path, names, expected, phone):
    lines = phone(*(f"{name}: text {number}" for number in range(5) for name in names))
    path = write(tmp_path / "chat.txt", lines)
    assert senders(path) == expected
    assert [text for _, text in parsed(path)] == [f"text {number}" for number in range(5) for _ in names]


def test_somebody_who_often_writes_a_colon_keeps_the_words(tmp_path):
    texts = ["Dana: note: milk", "Dana: note: bread", "Dana: note: eggs", "Dana: that is all", "Gil: note: ok"]
    assert parsed(write(tmp_path / "chat.txt", android(*texts))) == [tuple(text.split(": ", 1)) for text in texts]


def test_places_and_links_are_no_part_of_a_name(tmp_path):
    texts = ["Location: https://maps.google.com/?q=1,2", "Location: here", "Location: there", "see: https://a.bc"]
    lines = android("Dana: hi", *(f"Gil: {text}" for text in texts))
    assert parsed(write(tmp_path / "chat.txt", lines)) == [("Dana", "hi"), *(("Gil", text) for text in texts)]


def test_group_notices_that_lost_their_mark():
    messages = parsed(CASES / "013-group-notices-without-marks/chat.txt")
    assert [message for message in messages if message[0]] == [
        ("Dana", "hello all"),
        ("Gil", "hi hi"),
        ("Omer", "Gil added too much salt"),
        ("Gil", "no"),
    ]


@pytest.mark.parametrize(
    "notices",
    [
        ["Viaggio: I messaggi e le chiamate sono crittografati end-to-end con WhatsApp.", "Ana: Ana ha creato il gruppo “Viaggio”"],
        ["Viaggio: Budi menambahkan Anda", "Ana: Ana membuat grup “Viaggio”", "Viaggio: Anda sekarang admin"],
        [f"Viaggio: {LRM}הודעות ושיחות מוצפנות מקצה לקצה.", "Viaggio: אנה הוסיפה את לואיס", "Viaggio: אנה הסירה את דוד"],
        ["Viaggio: Pesan dan panggilan terenkripsi secara end-to-end, WhatsApp pun tidak dapat membacanya.", "Viaggio: Ana keluar"],
    ],
)  # fmt: skip
def test_a_group_never_writes(tmp_path, notices):
    lines = iphone(*notices, "Ana: ciao", "Luis: Ana ha creato problemi", "Ana: Luis dice di no")
    assert [message for message in parsed(write(tmp_path / "chat.txt", lines)) if message[0]] == [
        ("Ana", "ciao"),
        ("Luis", "Ana ha creato problemi"),
        ("Ana", "Luis dice di no"),
    ]


def test_notices_about_a_name_with_a_colon(tmp_path):
    texts = [
        "Dana: Work added Gil",
        "Dana: Work: a",
        "Gil: b",
        "Your security code with Dana: Work changed. Tap to learn more.",
    ]
    texts += ["Dana: Work: c", "Dana: Work: d", "Gil: e", "Dana: Work left", "Gil: f"]
    messages = parsed(write(tmp_path / "chat.txt", android(*texts)))
    assert [message for message in messages if message[0]] == [
        ("Dana: Work", "a"),
        ("Gil", "b"),
        ("Dana: Work", "c"),
        ("Dana: Work", "d"),
        ("Gil", "e"),
        ("Gil", "f"),
    ]


@pytest.mark.parametrize(
    "notice",
    [
        "+1-555-4444 added you to a group in the community: Chess club",
        "Dana added you to a group in the community: Chess",
        "You joined a group via invite in the community: Chess",
        "Dana changed settings: only admins can send messages",
        "Your security code with Dana: home changed. Tap to learn more.",
    ],
)  # lucasrodes/whatstk issue 147
def test_notices_that_hold_a_colon_have_no_sender(tmp_path, notice):
    lines = android("Dana: hi", notice, "Community: the name of a contact", "Gil: ok")
    assert parsed(write(tmp_path / "chat.txt", lines)) == [
        ("Dana", "hi"),
        (None, notice),
        ("Community", "the name of a contact"),
        ("Gil", "ok"),
    ]


def test_notices_about_people_who_are_no_contacts(tmp_path):  # lucasrodes/whatstk issues 135 and 139
    lines = iphone(
        "Trip: Messages and calls are end-to-end encrypted. No one outside of this chat can read them.",
        "~ Noa: ~ Noa created this group",
        "+972 50-555: Dana  added +972 50-555",
        "~\u202fOmer: ~\u202fNoa added ~\u202fOmer",
        "~ Noa: hi",
        "~\u202fOmer: Noa added salt",
        "Dana: ~ Noa left",
        "~ Noa: ~ Noa left",
    )
    assert [message for message in parsed(write(tmp_path / "chat.txt", lines)) if message[0]] == [
        ("Noa", "hi"),
        ("Omer", "Noa added salt"),
        ("Dana", "~ Noa left"),
    ]


def test_a_group_whose_name_holds_a_colon_never_writes(tmp_path):
    lines = iphone(
        "Trip: Eilat: Messages and calls are end-to-end encrypted. No one outside of this chat can read them.",
        "Dana: Dana created group “Trip: Eilat”",
        "Trip: Eilat: Dana added you",
        "Dana: hi",
        "Gil: Trip: when?",
        "Omer: soon",
    )
    assert [message for message in parsed(write(tmp_path / "chat.txt", lines)) if message[0]] == [
        ("Dana", "hi"),
        ("Gil", "Trip: when?"),
        ("Omer", "soon"),
    ]


@pytest.mark.parametrize("notices", [["Dana started a call"], ["Dana dodała Gila", "Omer wyszedł"]])
def test_a_group_whose_first_notice_is_not_in_the_export(tmp_path, notices):
    lines = iphone(
        "Omer: hi", *(f"Family: {LRM}{notice}" for notice in notices), "Dana: hey", f"Rut: {LRM}image omitted", "Gil: a"
    )
    assert senders(write(tmp_path / "chat.txt", lines)) == {None, "Omer", "Dana", "Rut", "Gil"}


@pytest.mark.parametrize(
    "notice",
    [
        "Los mensajes y llamadas en este chat ahora están protegidos con cifrado de extremo a extremo.",
        "Les messages envoyés dans cette discussion et les appels sont désormais protégés avec le chiffrement de bout en bout.",
        "Nachrichten in diesem Chat sowie Anrufe sind jetzt mit Ende-zu-Ende-Verschlüsselung geschützt.",
        "הודעות שיישלחו בצ'אט זה ושיחות מאובטחות כעת בהצפנה מקצה-לקצה.",
        "Zprávy a hovory jsou zabezpečeny koncovým šifrováním.",
        "تم تشفير الرسائل والمكالمات تمامًا بين الطرفين.",
        "Messages to this chat and calls are now secured with end-to-end encryption.",
    ],
)  # prabhakar267/WA-Reader issue 36, JBGruber/rwhatsapp issue 8: what chats of 2016 to 2020 begin with
def test_the_contact_does_not_say_that_messages_are_encrypted(tmp_path, prepare, notice):
    lines = iphone(f"Ana: {notice}", "Ana: hola", "Gil: ¿es de extremo a extremo?", f"Ana: {notice}", "Gil: sí")
    turns, _, _ = prepare(write(tmp_path / "chat.txt", lines))
    assert words(turns) == ["hola", "¿es de extremo a extremo?", "sí"]


@pytest.mark.parametrize(
    "notices",
    [
        ["Pesan dan panggilan terenkripsi secara end-to-end, WhatsApp pun tidak dapat membacanya.", "Ana membuat grup “Trip”", "Ana mengubah ikon grup ini", "Ana menambahkan Luis"],
        ["Wiadomości i połączenia są w pełni szyfrowane. Nikt, nawet WhatsApp, nie może ich odczytać.", "Ana utworzył(a) grupę „Trip”", "Ana zmienił(a) ikonę tej grupy", "Ana dodał(a) Luis"],
        ["Nachrichten sind Ende-zu-Ende-verschlüsselt. Nicht einmal WhatsApp kann sie lesen.", "Ana hat die Gruppe „Trip“ erstellt", "Ana hat das Gruppenbild geändert", "Ana hat Luis hinzugefügt"],
        ["Ujumbe na simu zimefumbwa mwisho hadi mwisho, hata WhatsApp haiwezi kuzisoma.", "Ana aliunda kikundi “Trip”", "Ana alibadilisha ikoni", "Ana aliongeza Luis"],
    ],
)  # fmt: skip
def test_notices_of_groups_in_languages_that_few_tables_have(tmp_path, notices):
    encryption, created, changed, added = notices
    lines = iphone(
        f"Trip: {encryption}", f"Ana: {created}", "Ana: hi", "Eva: Ana, are you there?", f"Ana: {changed}", f"Luis: {added}",
        "Luis: Luis, not Louis!", "Eva: bye",
    )  # fmt: skip
    assert [message for message in parsed(write(tmp_path / "chat.txt", lines)) if message[0]] == [
        ("Ana", "hi"),
        ("Eva", "Ana, are you there?"),
        ("Luis", "Luis, not Louis!"),
        ("Eva", "bye"),
    ]


def test_the_contact_of_a_chat_of_two_is_no_group(tmp_path):
    lines = iphone("Dana: Messages and calls are end-to-end encrypted.", "Dana: hi", "Gil: hey", "Dana: Dana is here")
    assert parsed(write(tmp_path / "chat.txt", lines))[1:] == [
        ("Dana", "hi"),
        ("Gil", "hey"),
        ("Dana", "Dana is here"),
    ]


@pytest.mark.parametrize(("name", "people"), [("pl", {"Adam", "Ewa"}), ("id", {"Budi", "Sari"})])
def test_quoted_names_of_groups(name, people):
    assert senders(CASES / f"015-quoted-group-name-other-languages/{name}.txt") - {None} == people


@pytest.mark.parametrize(
    "notice",
    [
        "Anna skapade gruppen ”Resa: Oslo”",
        "Anna a renommé le groupe «Voyage: Rome» en «Rome»",
        "Anna グループ名を「旅行: 京都」に変更しました",
        'Minulla on "Matka: Oulu" ryhmä',
        'Anna loi ryhmän "Matka: Oulu"',
    ],
)
def test_quoted_names_of_groups_in_other_languages(tmp_path, notice):
    lines = android(notice, "Anna: hej", 'Yossi 5": he said "hi"', 'Anna: she said "a: b"')
    assert parsed(write(tmp_path / "chat.txt", lines)) == [
        (None, notice),
        ("Anna", "hej"),
        ('Yossi 5"', 'he said "hi"'),
        ("Anna", 'she said "a: b"'),
    ]


def test_an_assistant_makes_no_group(prepare):
    turns, report, _ = prepare(CASES / "021-meta-ai-in-a-chat-of-two/WhatsApp Chat with Dana.txt")
    assert report["messages"]["dropped"]["assistant"] == 1
    assert [person["name"] for person in report["exports"][0]["participants"]] == ["Gil", "Dana"]
    assert not any(line.startswith(("Dana: ", "Meta AI: ")) for line in words(turns))


def test_a_chat_with_the_assistant_alone_stays_a_chat(tmp_path, prepare):
    path = write(tmp_path / "chat.txt", android("Gil: what is 2+2", "Meta AI: 4", "Gil: thanks"))
    assert prepare(path)[0] == [("assistant", "what is 2+2"), ("user", "4"), ("assistant", "thanks")]


# ---- Texts that recur ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat", "ios"])
def test_edited_marks_of_a_language_that_no_table_has(prepare, name):
    turns, _, _ = prepare(CASES / f"003-edited-mark-other-languages/{name}.txt", imitate="Sari")
    assert "jadi jam delapan ya" in words(turns)
    assert not any("diedit" in line for line in words(turns))
    assert name == "ios" or "aku <3 kamu" in words(turns)


@pytest.mark.parametrize("mark", ["<このメッセージは編集されました>", "<Tin nhắn đã chỉnh sửa>", "<ข้อความนี้ถูกแก้ไขแล้ว>"])
def test_edited_marks_recur(tmp_path, prepare, mark):
    lines = android(
        f"Gil: one {mark}", "Dana: two <3 you", f"Gil: three {mark}", "Dana: <sarcasm> four", "Gil: five <joke>"
    )
    turns, _, _ = prepare(write(tmp_path / "chat.txt", lines))
    assert words(turns) == ["one", "two <3 you", "three", "<sarcasm> four", "five <joke>"]


def test_a_placeholder_that_one_person_sends(prepare):
    turns, report, shown = prepare(CASES / "009-placeholder-of-one-person/chat.txt")
    assert not any("jijunaa" in line for line in words(turns))
    assert report["unknown_placeholders"] == {"<Media jijunaa>": 20}
    assert "Left out as WhatsApp's own text: <Media jijunaa> (20 times)" in shown


@pytest.mark.parametrize("body", ["<Meediafail on välja jäetud>", "<မီဒီယာ ချန်ထား>", "<ບໍ່ມີສື່>"])
def test_placeholders_recur(tmp_path, prepare, body):
    lines = android("Gil: a", f"Gil: {body}", "Dana: b", f"Gil: {body}", "Dana: <sigh>", f"Gil: {body}", "Gil: c")
    turns, report, _ = prepare(write(tmp_path / "chat.txt", lines))
    assert words(turns) == ["a", "b", "<sigh>", "c"]
    assert report["unknown_placeholders"] == {body: 3}


@pytest.mark.parametrize("name", ["chat", "unmarked"])
def test_captions_under_documents_stay_and_titles_go(prepare, name):
    turns, report, _ = prepare(CASES / f"020-caption-under-document/{name}.txt", flags=["--no-redaction"])
    assert words(turns) == ["read page two please", "done", "this is the list"]
    assert report["messages"]["dropped"] == {"after_last_reply": 1}


@pytest.mark.parametrize(
    "first_line",
    [
        "list.xlsx • 4 páginas documento omitido",
        "תוכנית.pdf • 3 עמודים <מצורף: 00000014-plan.pdf>",
        f"{LRM}plan.pdf • {LRM}3 kurasa {LRM}<mellekelve: 00000014-plan.pdf>",
        "plan.docx • 3 kurasa hati imeachwa",
    ],
)
def test_captions_under_documents_in_other_languages(tmp_path, prepare, first_line):
    lines = [*iphone("Dana: hi", f"Gil: {first_line}"), "my caption", *iphone("Gil: see • this")]
    turns, _, _ = prepare(write(tmp_path / "chat.txt", lines))
    assert words(turns) == ["hi", "my caption", "see • this"]


def test_the_owners_name_in_the_export_of_whatsapp_web_is_said(tmp_path, prepare):
    phone = write(tmp_path / "phone.txt", android("Noa: a", "Gil: b"))
    _, _, shown = prepare(phone, CASES / "202-export-of-whatsapp-web/chat.txt")
    assert "does not write here; WhatsApp Web calls its owner You: add --imitate You" in shown


@pytest.mark.parametrize(
    "text",
    [
        "Helsinki\nMain street 5\nlocation: https://maps.google.com/?q=60.16,24.95",
        "AUD-20190101-WA0000. (file attached)",
        "test_document • 2 pages <attached: 00000001-test_document.pdf>",
        "test_document • 1 page document omitted",
        "Message not supported",
    ],
)  # the formats that linuswillner/whatsapp-export-inconsistencies lists
def test_places_and_files_without_a_persons_words(tmp_path, prepare, text):
    lines = iphone("Gil: a", f"Dana: {text}", f"Gil: {text}", "Dana: b", "Gil: c")
    assert words(prepare(write(tmp_path / "chat.txt", lines))[0]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "mark",
    [
        "<Diese Nachricht wurde bearbeitet.>",
        "<Ta wiadomość została edytowana>",
        "<此訊息已編輯>",
        "<ההודעה הזאת נערכה>",
    ],
)
def test_one_edited_mark_is_enough(tmp_path, prepare, mark):
    lines = android("Gil: a", f"Dana: b {mark}", "Gil: c <edited>", "Dana: d <I edited it", "Gil: e")
    assert words(prepare(write(tmp_path / "chat.txt", lines))[0]) == ["a", "b", "c <edited>", "d <I edited it", "e"]


def test_the_export_of_whatsapp_web(prepare):
    turns, report, _ = prepare(CASES / "202-export-of-whatsapp-web/chat.txt", imitate="You")
    assert turns == [
        ("user", "hi"),
        ("assistant", "our dog\nlook what they wrote"),
        ("user", "look\nnice"),
        ("assistant", "see (file attached) please\nok"),
    ]
    assert [person["name"] for person in report["exports"][0]["participants"]] == ["Dana", "You"]
    assert report["messages"]["dropped"] == {
        "notice": 4, "poll": 1, "location": 2, "media": 3, "contact": 1, "deleted": 1, "after_last_reply": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("question", "option"), [("ANKIETA:", "OPCJA:"), ("アンケート:", "オプション:"), ("SONDAJ:", "OPȚIUNE:")]
)
def test_polls_have_a_form_in_every_language(tmp_path, prepare, question, option):
    poll = f"Gil: {question}\nwhen?\n{option} Sunday (1 vote)\n{option} Monday (0 votes)"
    lines = android("Gil: a", poll, "Dana: JOBS:\nMilk: a (3 l)\nMilk: b (4 l)", "Gil: b")
    turns, _, _ = prepare(write(tmp_path / "chat.txt", lines))
    assert words(turns) == ["a", "JOBS:", "Milk: a (3 l)", "Milk: b (4 l)", "b"]


# ---- Several formats -------------------------------------------------------------------------------------------------


def test_two_formats_in_one_file():
    export = parse_export(CASES / "004-two-formats-in-one-file/chat.txt")
    messages = list(export)
    assert len(messages) == 200
    assert {message.sender for message in messages} == {"Gil", "Dana"}
    assert not any("\n" in message.text for message in messages)
    assert [message.text.rsplit(" ", 1)[1] for message in messages] == [str(number) for number in range(200)]
    assert any("line 101" in warning for warning in export.warnings)


FORMS = [
    "%d.%m.%Y, %H:%M - ", "[%d.%m.%y, %H:%M:%S] ", "%m/%d/%y, %I:%M %p - ", "[%m/%d/%y, %I:%M:%S %p] ", "%Y-%m-%d, %H:%M - ",
    "%d/%m/%Y, %H:%M:%S: ", "%H:%M %d/%m/%Y - ", "[%Y/%m/%d %H.%M.%S] ", "%d/%m/%Y %H.%M - ", "%d-%m-%Y %H:%M - ",
]  # fmt: skip


@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", FORMS)
def test_a_new_phone_or_clock_from_some_day_on(tmp_path, first, second):
    texts = [f"{'Dana' if number % 3 else 'Gil'}: m{number}" for number in range(40)]
    later = START + timedelta(days=20, hours=3)
    path = write(
        tmp_path / "chat.txt", android(*texts[:25], form=first) + android(*texts[25:], start=later, form=second)
    )
    times = [START + timedelta(minutes=number) for number in range(25)]
    times += [later + timedelta(minutes=number) for number in range(15)]
    assert [(message.sent_at, message.sender, message.text) for message in parse_export(path)] == [
        (at, *text.split(": ")) for at, text in zip(times, texts, strict=True)
    ]


def test_three_parts_and_the_first_format_again(tmp_path):
    forms = [FORMS[0], FORMS[1], FORMS[3], FORMS[0]]
    lines = [
        line
        for number, form in enumerate(forms)
        for line in android("Gil: a", "Dana: b", "Gil: c", start=START + timedelta(days=number), form=form)
    ]
    messages = list(parse_export(write(tmp_path / "chat.txt", lines)))
    assert [message.text for message in messages] == ["a", "b", "c"] * 4
    assert [message.sent_at.day for message in messages[::3]] == [12, 13, 14, 15]


def test_the_older_part_may_stand_last(tmp_path):
    newer = iphone("Gil: a", "Dana: b", "Gil: c", start=START + timedelta(days=9))
    lines = newer + android("Dana: d", "Gil: e", "Dana: f")
    assert [text for _, text in parsed(write(tmp_path / "chat.txt", lines))] == list("abcdef")


def test_day_and_month_change_places_from_some_line_on(tmp_path):
    days = [date(2024, 1, 5) + timedelta(days=number) for number in range(60)]
    lines = [
        f"{day:{'%d/%m/%Y' if number < 33 else '%m/%d/%Y'}}, 18:15 - {'Gil' if number % 2 else 'Dana'}: m"
        for number, day in enumerate(days)
    ]
    export = parse_export(write(tmp_path / "chat.txt", lines))
    assert [message.sent_at.date() for message in export] == days
    assert any("line 34" in warning for warning in export.warnings)


def test_an_order_that_changes_again_and_again_is_refused_with_the_line(tmp_path):
    texts = ["13/01/2024", "01/14/2024", "15/01/2024", "01/16/2024", "17/01/2024", "01/18/2024", "19/01/2024"]
    path = write(tmp_path / "chat.txt", [f"{text}, 18:15 - Gil: m" for text in texts])
    with pytest.raises(ExportError, match="line 2: the order of day and month changes here"):
        list(parse_export(path))


def test_a_part_of_strangers_is_refused_with_the_line_where_it_begins(tmp_path):
    lines = android("Gil: a", "Dana: b", "Gil: c")
    lines += iphone(*(f"{'Noa' if number % 2 else 'Omer'}: x" for number in range(9)), start=START - timedelta(days=99))
    with pytest.raises(ExportError, match="line 4: messages of another format begin here; give each part"):
        list(parse_export(write(tmp_path / "chat.txt", lines)))


@pytest.mark.parametrize(
    "pasted",
    [
        "[13.03.24, 9:1:5] server: started",
        "[18:15, 12/3/2024] Gil: from the web",
        "[01.02.24, 09:01:05] Gil: an old message",
        "2024-03-12, 9:05 p.m. - Dana: from the other phone",
        "[14.03.24, 10:00] Meeting: tomorrow",
        "2024-03-12 21:32:42,123 INFO: started",
    ],
)
def test_a_pasted_line_stays_text(tmp_path, pasted):
    lines = [*android("Gil: a", "Dana: look"), pasted, *android("Gil: b", "Dana: c", start=START + timedelta(hours=1))]
    assert [text for _, text in parsed(write(tmp_path / "chat.txt", lines))] == ["a", f"look\n{pasted}", "b", "c"]


def test_clocks_without_zeros():
    times = [
        message.sent_at.time().isoformat() for message in parse_export(CASES / "027-clock-with-one-digit/unpadded.txt")
    ]
    assert times == ["19:05:01", "19:06:11", "19:07:09", "19:08:10"]
    messages = parsed(CASES / "027-clock-with-one-digit/pasted.txt")
    assert messages[2] == ("Dana", "here\n[13.03.24, 9:1:5] server: started")


@pytest.mark.parametrize(
    ("headers", "times"),
    [
        (["19/10/16, 13:24 PM - ", "20/10/16, 09:25 AM - ", "20/10/16, 00:25 AM - "], ["13:24", "09:25", "00:25"]),
        (["[04/15/2016 13:19:20 PM] - ", "[04/16/2016 09:21:20 AM] - "], ["13:19", "09:21"]),
        (["13/03/2024, 24:15 - ", "13/03/2024, 01:00 - "], ["00:15", "01:00"]),
        (["01.04.2015 - 16:00:27; ", "13.04.2015 - 16:06:34; "], ["16:00", "16:06"]),
        (["22:10, 30 בספט׳ 2013 - ", "22:11, 1 באוקטובר 2013 - "], ["22:10", "22:11"]),
        (["13.3.2024, 6:15 בערב - ", "14.3.2024, 6:15 בבוקר - "], ["18:15", "06:15"]),
    ],
)  # langchain issue 2457, whatstk issue 17, rwhatsapp issue 17
def test_clocks_that_few_phones_write(tmp_path, headers, times):
    messages = list(parse_export(write(tmp_path / "chat.txt", [f"{header}Gil: hi" for header in headers])))
    assert [f"{message.sent_at:%H:%M}" for message in messages] == times
    assert {message.sender for message in messages} == {"Gil"}


def test_two_digits_of_a_buddhist_year(tmp_path):
    lines = ["[13/3/67 21:00:05] Gil: hi", "[14/3/67 21:00:05] Dana: hi"]
    assert [message.sent_at.year for message in parse_export(write(tmp_path / "chat.txt", lines))] == [2024, 2024]


def test_one_pasted_line_makes_no_clock_of_24_hours(tmp_path):
    lines = ["3/13/24, 9:01 PM - Gil: look", "3/13/24, 21:00 PM - Gil: pasted", "3/13/24, 9:02 PM - Dana: ok"]
    assert [message.sent_at.hour for message in parse_export(write(tmp_path / "chat.txt", lines))] == [21, 21]


# ---- Several exports of one chat ---------------------------------------------------------------------------------------


def test_an_old_android_and_a_new_iphone(prepare):
    folder = CASES / "005-old-android-new-iphone"
    for exports in (["old_android.txt", "new_iphone.txt"], ["new_iphone.txt", "old_android.txt"]):
        turns, report, _ = prepare(*(folder / name for name in exports))
        assert report["messages"]["dropped"]["duplicate"] == 80
        assert len({export["chat"] for export in report["exports"]}) == 1
        assert len(words(turns)) == len(set(words(turns)))


TALK = [f"{'Dana' if number % 2 else 'Gil'}: {number} is a number" for number in range(60)]


@pytest.mark.parametrize(
    ("form", "shift_minutes", "name"),
    [
        (FORMS[0], 0, "Dana"),
        (FORMS[1], 0, "Dana L."),
        (FORMS[0], 120, "Dana"),
        (FORMS[1], -345, "Dana"),
        (FORMS[3], 600, "Dana ❤️"),
    ],
)
def test_copies_of_another_phone_time_zone_or_name(tmp_path, prepare, form, shift_minutes, name):
    old = write(tmp_path / "old.txt", android(*TALK[:45]))
    start = START + timedelta(minutes=20 + shift_minutes, seconds=7)
    new = write(
        tmp_path / "new.txt", android(*(text.replace("Dana", name) for text in TALK[20:]), start=start, form=form)
    )
    for exports in ([old, new], [new, old]):
        turns, report, _ = prepare(*exports)
        assert report["messages"]["dropped"]["duplicate"] == 25
        assert words(turns) == [text.split(": ")[1] for text in TALK[: len(words(turns))]]
        assert len(words(turns)) >= 59


def test_the_imitated_person_may_have_two_names(tmp_path, prepare):
    old = write(tmp_path / "old.txt", android(*(text.replace("Gil", "Gil Cohen") for text in TALK[:45])))
    new = write(tmp_path / "new.txt", iphone(*TALK[20:], start=START + timedelta(minutes=20)))
    turns, report, _ = prepare(old, new)
    assert report["messages"]["dropped"]["duplicate"] == 25
    assert [role for role, _ in turns[:4]] == ["assistant", "user"] * 2


def hours(*texts, start=START, form=FORMS[0]):
    return [f"{start + timedelta(hours=number / 2):{form}}{text}" for number, text in enumerate(texts)]


@pytest.mark.parametrize("form", [FORMS[0], FORMS[1]])
def test_overlapping_exports_that_somebody_joined_to_one_file(tmp_path, prepare, form):
    joined = hours(*TALK[:45]) + hours(*TALK[20:], start=START + timedelta(hours=10), form=form)
    turns, report, _ = prepare(write(tmp_path / "chat.txt", joined))
    assert report["messages"]["dropped"]["duplicate"] == 25
    assert len(words(turns)) == len(set(words(turns))) >= 59


def test_a_message_written_twice_stays_twice(tmp_path, prepare):
    lines = [
        *android("Gil: ok", "Gil: ok"),
        *android("Gil: late", start=START - timedelta(hours=5)),
        *android("Gil: yes"),
    ]
    lines[1] = lines[0]
    assert words(prepare(write(tmp_path / "chat.txt", [*lines, *android("Dana: no", "Gil: fine")]))[0]) == [
        "ok", "ok", "late", "yes", "no", "fine",
    ]  # fmt: skip


def test_both_phones_of_a_chat_call_both_people_otherwise(tmp_path, prepare):
    one = write(tmp_path / "one.txt", android(*TALK[:45]))
    names = [text.replace("Dana", "Dana Levi").replace("Gil", "My Gil") for text in TALK[20:]]
    other = write(tmp_path / "other.txt", iphone(*names, start=START + timedelta(minutes=20)))
    for flags in ([], ["--imitate", "My Gil"]):
        turns, report, _ = prepare(one, other, flags=flags)
        assert report["messages"]["dropped"]["duplicate"] == 25
        assert words(turns) == [text.split(": ")[1] for text in TALK[:59]]


def test_two_phones_of_a_group_call_everybody_otherwise(tmp_path, prepare):
    texts = [f"{('Dana', 'Gil', 'Noa')[number % 3]}: {number} is a number" for number in range(60)]
    names = {"Dana": "+972 50-111-2222", "Gil": "Me", "Noa": "Noa from work"}
    foreign = [f"{names[text.partition(':')[0]]}:{text.partition(':')[2]}" for text in texts]
    one = write(tmp_path / "one.txt", android(*texts[:45]))
    other = write(tmp_path / "other.txt", iphone(*foreign[20:], start=START + timedelta(minutes=20)))
    turns, report, _ = prepare(one, other, flags=["--imitate", "Me"])
    assert report["messages"]["dropped"]["duplicate"] == 25
    assert {line.partition(":")[0] for line in words(turns) if ":" in line} == {"Dana", "Noa"}


def test_two_chats_of_other_people_stay_two(tmp_path, prepare):
    one = write(tmp_path / "one.txt", android(*TALK))
    other = write(
        tmp_path / "other.txt", android(*(text.replace("number", "thing").replace("Dana", "Noa") for text in TALK))
    )
    assert "duplicate" not in prepare(one, other)[1]["messages"]["dropped"]


def test_an_export_whose_newest_messages_stand_first(tmp_path, prepare):
    turns, _, shown = prepare(write(tmp_path / "chat.txt", hours(*TALK)[::-1]))
    assert words(turns) == [text.split(": ")[1] for text in TALK[:59]]
    assert "its newest messages stand first; it was read from its end" in shown


def test_parts_of_a_chat_that_were_joined_the_latest_first_are_read_forwards(tmp_path, prepare):
    lines = hours(*TALK)
    turns, _, shown = prepare(write(tmp_path / "chat.txt", [*lines[30:40], *lines[20:30], *lines[10:20], *lines[:10]]))
    assert words(turns)[:3] == [text.split(": ")[1] for text in TALK[30:33]]
    assert "newest messages" not in shown


def test_a_message_that_arrived_hours_late_stays_in_its_conversation(
    tmp_path, prepare
):  # whatsapp-chat-parser issue 247
    lines = android("Gil: a", "Dana: b", "Dana: late", "Gil: c")
    lines[2] = lines[2].replace("21:32", "16:32")
    assert prepare(write(tmp_path / "chat.txt", lines))[0] == [
        ("assistant", "a"),
        ("user", "b\nlate"),
        ("assistant", "c"),
    ]


def test_messages_forwarded_to_two_chats_make_no_chat_of_them(tmp_path, prepare):
    one = write(tmp_path / "one.txt", android(*TALK))
    other = write(
        tmp_path / "other.txt",
        iphone(*(text.replace("Dana", "Noa").replace("is", "was") if "Dana" in text else text for text in TALK)),
    )
    assert "duplicate" not in prepare(one, other)[1]["messages"]["dropped"]


def test_what_cannot_be_decided_is_said(tmp_path, prepare):
    one = write(tmp_path / "one.txt", android(*TALK))
    texts = [text if number < 6 else text.replace("number", "thing") for number, text in enumerate(TALK)]
    _, report, shown = prepare(one, write(tmp_path / "other.txt", iphone(*texts)))
    assert "duplicate" not in report["messages"]["dropped"]
    assert "other.txt and one.txt have 6 messages in common, too few to tell" in shown


# ---- Text that is not what it seems --------------------------------------------------------------------------------------


def test_hebrew_that_was_read_as_western_is_repaired(prepare):
    turns, report, shown = prepare(CASES / "011-read-as-western-and-saved/chat.txt", imitate="גיל")
    assert words(turns)[:2] == ["שלום מה נשמע", "בסדר גמור 😂"]
    assert "had been read as a Western code page and saved again; it was repaired" in shown


HEBREW = (
    "\n".join(android("דנה: שלום מה נשמע", "גיל: בסדר גמור 😂", "דנה: יאללה ניפגש מחר", "גיל: סבבה", "גיל: ok")) + "\n"
)


def western(text):
    """Decode as programs do that take a file for Western: as cp1252, and as Latin-1 where that has no character."""
    return "".join(
        bytes([byte]).decode("cp1252" if byte not in b"\x81\x8d\x8f\x90\x9d" else "latin-1") for byte in text.encode()
    )


@pytest.mark.parametrize(
    "damaged",
    [
        HEBREW.encode().decode("latin-1"),
        western(HEBREW),
        western(western(HEBREW)),
        HEBREW.encode().decode("mac_roman"),
        HEBREW.encode().decode("cp437"),
        HEBREW.replace("😂", "xx").encode("cp1255").decode("cp1252"),
    ],
    ids=["latin-1", "cp1252", "twice", "mac", "dos", "old hebrew"],
)
def test_text_that_was_read_wrongly_and_saved_again(tmp_path, damaged):
    many = "".join(f"{line}\n" for line in damaged.split("\n") if line) * 4
    messages = parsed(write(tmp_path / "chat.txt", many))
    assert messages[0] == ("דנה", "שלום מה נשמע")
    assert messages[-1] == ("גיל", "ok")


@pytest.mark.parametrize("lost", ["", "?", "\ufffd"])
def test_text_that_lost_letters_on_the_way_is_refused(tmp_path, lost):
    damaged = "".join(lost if character in "\x81\x8d\x8f\x90\x9d" else character for character in western(HEBREW * 3))
    with pytest.raises(ExportError, match="letters were lost; export the chat again"):
        parse_export(write(tmp_path / "chat.txt", damaged))


@pytest.mark.parametrize(
    "text",
    ["voilà, ça va où déjà", "Ã© is what he saw", "größer als müde Füße", "привет, как дела", "שלום ×2", "naïve café"],
)
def test_what_people_write_is_never_repaired(tmp_path, text):
    lines = android(
        *(f"{name}: {text}" for name in ("Gil", "Dana") for _ in range(2)), "Gil: été à la mer, déjà vu", "Dana: ok"
    )
    assert parsed(write(tmp_path / "chat.txt", lines))[0] == ("Gil", text)


def test_old_emoji_become_the_emoji_they_stand_for(prepare):
    turns, _, shown = prepare(CASES / "012-old-private-use-emoji/chat.txt")
    assert words(turns) == ["👽", "nice one 😄😍", "miss you ❤️"]
    assert "private use" not in shown


def test_other_characters_for_private_use_are_left_out_and_counted(tmp_path, prepare):
    lines = android("Dana: a\uf8ffb", "Gil \ue022: \U000fe320 \U000f0001", "Dana: \uf8ff", "Gil \ue022: c")
    turns, report, shown = prepare(write(tmp_path / "chat.txt", lines), imitate="Gil ❤️")
    assert words(turns) == ["ab", "😠", "c"]
    assert report["messages"]["dropped"] == {"empty": 1}
    assert "3 characters for private use stand for no known emoji and were left out" in shown


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("{\\rtf1\\ansi 30/09/2022, 18:15 - Rut: hi}", "an RTF document"),
        ("<!DOCTYPE html>\n<html>30/09/2022, 18:15 - Rut: hi", "an HTML page"),
        ("\ufeff  <!-- saved --><HTML lang='he'>\n30/09/2022, 18:15 - Rut: hi", "an HTML page"),
        ('<?xml version="1.0"?>\n<html>\n30/09/2022, 18:15 - Rut: hi', "an HTML page"),
    ],
)
@pytest.mark.parametrize("is_zipped", [False, True])
def test_documents_under_txt_are_refused_by_name(tmp_path, content, kind, is_zipped):
    path = write(tmp_path / "chat.txt", content)
    if is_zipped:
        path = write_zip(tmp_path / "chat.zip", ("_chat.txt", content))
    with pytest.raises(ExportError, match=f"is {kind}, not an export"):
        parse_export(path)


def write_zip(path, *entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


LINES = "".join(f"{line}\n" for line in android("Gil: a", "Dana: b"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_chats_in_one_zip_none_wins_silently(tmp_path):
    other = LINES.replace("Dana", "Noa")
    same = write_zip(tmp_path / "same.zip", ("_chat.txt", LINES), ("_chat.txt", LINES))
    assert len(parsed(same)) == 2
    with pytest.raises(ExportError, match="holds 2 different files called '_chat.txt'; unpack it once"):
        parse_export(write_zip(tmp_path / "a.zip", ("_chat.txt", LINES), ("_chat.txt", other)))
    with pytest.raises(
        ExportError, match="holds 2 chats; choose one with --chat NAME\n  'a/_chat.txt'\n  'b/_chat.txt'"
    ):
        parse_export(write_zip(tmp_path / "b.zip", ("a/_chat.txt", LINES), ("b/_chat.txt", other)))
    with pytest.raises(ExportError, match="holds 2 chats"):
        parse_export(write_zip(tmp_path / "c.zip", ("_chat.txt", LINES), ("_Chat.TXT", other)))


def test_a_zip_of_zips_is_refused_with_the_cure(tmp_path):
    inner = write_zip(tmp_path / "inner.zip", ("_chat.txt", LINES)).read_bytes()
    outer = write_zip(
        tmp_path / "WhatsApp.zip", ("WhatsApp Chat - Dana.zip", inner), ("WhatsApp Chat - Noa.zip", inner)
    )
    with pytest.raises(
        ExportError, match="holds no .txt but 2 zips; unpack it once and give them\n  'WhatsApp Chat - Dana.zip'"
    ):
        parse_export(outer)
    with pytest.raises(ScriptError, match="unpack it once"):  # also below a folder it is not passed over
        load_whatsapp.main([str(tmp_path), "--imitate", "Gil", "--path-to-data", str(tmp_path / "out/d.jsonl")])
    with pytest.raises(ExportError, match="holds a zip; unpack it once"):
        parse_export(write_zip(tmp_path / "named.zip", ("_chat.txt", inner)))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_what_phones_pack_is_opened(tmp_path, method):
    path = write_zip(tmp_path / "a.zip", ("_chat.txt", LINES), method=method)
    with pytest.raises(ExportError, match="packed as no phone packs it; unpack it once"):
        parse_export(path)
