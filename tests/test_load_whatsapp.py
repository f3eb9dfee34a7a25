"""Stage 1 as its users meet it: run as a program, on made-up exports, in a folder of its own."""

import contextlib
import json
import os
import pty
import resource
import select
import signal
import stat
import subprocess
import sys
import time
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import load_whatsapp
import pytest
from calls_of_stage1 import call_script

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "src/data_preprocessing/load_whatsapp.py"
NUM_LONG = 12_000  # messages that take the stage about a second
OUTPUTS = ("formatted_data.jsonl", "dropped_messages.jsonl", "preprocessing_report.json")

CHAT = [  # (minutes after the start, sender, text)
    (0, "Dan", "hi"),
    (1, "Dan", "how are you?"),
    (2, "Rut Levi", "good 😂👨‍👩‍👧"),
    (3, "Rut Levi", "and you?\nwell?"),
    (4, "Dan", "<Media omitted>"),
    (5, "Dan", "שלום, הכל טוב"),
    (6, "Rut Levi", "call me on 050-123-4567"),
    (7, "Dan", "https://example.com/a"),
    (8, "Dan", "bye"),
    (200, "Dan", "anyone?"),
    (400, "Rut Levi", "good morning"),
]
START = datetime(2023, 3, 20, 9, 0)


def android(messages, start=START):
    return "".join(
        f"{start + timedelta(minutes=minutes):%d/%m/%Y, %H:%M} - {who}: {text}\n" for minutes, who, text in messages
    )


def iphone(messages, start=START):
    lines = []
    for minutes, who, text in messages:
        text = "\u200eimage omitted" if text == "<Media omitted>" else text
        mark = "\u200e" if text.startswith("\u200e") else ""
        lines.append(f"{mark}[{start + timedelta(minutes=minutes):%d.%m.%Y, %H:%M:%S}] {who}: {text}\r\n")
    return "".join(lines)


def run(folder, *arguments, script=SCRIPT, program=sys.executable, **options):
    """Run the stage as a program of its own."""
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60} | options
    return subprocess.run([program, str(script), *map(str, arguments)], cwd=folder, **options)


def call(folder, *arguments):
    """Run the stage within this process, which is much faster, and return what `run` would."""
    return call_script(load_whatsapp, folder, arguments)


def convert(folder, *arguments, imitate="Rut Levi"):
    """Run the stage on `arguments`, which must succeed, and return (conversations, report, dropped, process)."""
    result = call(folder, *arguments, "--imitate", imitate, "--path-to-data", "out/formatted_data.jsonl")
    assert result.returncode == 0, result.stderr
    return (*read_outputs(folder / "out"), result)


def read_outputs(out):
    conversations, dropped = (
        [json.loads(line) for line in (out / name).read_text(encoding="utf-8").split("\n")[:-1]] for name in OUTPUTS[:2]
    )
    report = json.loads((out / OUTPUTS[2]).read_text(encoding="utf-8"))
    numbers = report["messages"]
    assert numbers["parsed"] == numbers["kept"] + sum(numbers["dropped"].values())
    assert len(dropped) == sum(numbers["dropped"].values())
    return conversations, report, dropped


def words(conversation):
    return [(turn["role"], turn["content"]) for turn in conversation["messages"]]


def error_of(result, status=1):
    """Return the error's first line, after checking the contract of every error."""
    assert result.returncode == status, result.stderr
    lines = result.stderr.rstrip("\n").split("\n")
    first, *details = [line for line in lines if not line.startswith("warning: ")]
    assert first.startswith("load_whatsapp: ")
    assert "Traceback" not in result.stderr
    assert all(line.startswith("  ") for line in details)
    return first


@pytest.fixture
def chat_dir(tmp_path):
    """A folder with the made-up chat in chat.txt."""
    (tmp_path / "chat.txt").write_text(android(CHAT), encoding="utf-8")
    return tmp_path


# ---- What it makes ----


EXPECTED = [
    [
        ("user", "hi\nhow are you?"),
        ("assistant", "good 😂👨‍👩‍👧\nand you?\nwell?"),
        ("user", "שלום, הכל טוב"),
        ("assistant", "call me on [PHONE]"),
    ],
    [("assistant", "good morning")],
]


@pytest.mark.parametrize("render", [android, iphone])
def test_one_chat_in_both_phones_formats_makes_the_same_conversations(tmp_path, render):
    (tmp_path / "chat.txt").write_text(render(CHAT), encoding="utf-8", newline="")
    conversations, report, dropped, _ = convert(tmp_path, "chat.txt")
    assert [words(conversation) for conversation in conversations] == EXPECTED
    assert [conversation["started_at"] for conversation in conversations] == [
        "2023-03-20T09:00:00",
        "2023-03-20T15:40:00",
    ]
    assert {conversation["chat"] for conversation in conversations} == {"chat"}
    reasons = {"media": 1, "link": 1, "after_last_reply": 1, "no_reply_in_conversation": 1}
    assert report["messages"] == {"parsed": 11, "kept": 7, "dropped": reasons}
    assert report["conversations"]["num_replies"] == 3
    assert [message["reason"] for message in dropped if message["text"] == "anyone?"] == ["no_reply_in_conversation"]


def test_hebrew_and_emoji_stand_in_the_file_as_they_are(chat_dir):
    convert(chat_dir, "chat.txt")
    data = (chat_dir / "out/formatted_data.jsonl").read_text(encoding="utf-8")
    assert "שלום, הכל טוב" in data
    assert "👨‍👩‍👧" in data
    assert list(json.loads(data.split("\n")[0])) == ["messages", "chat", "started_at", "with"]


def test_reads_the_zip_as_the_phone_sends_it(chat_dir):
    with zipfile.ZipFile(chat_dir / "WhatsApp Chat - Dan.zip", "w") as archive:
        archive.writestr("_chat.txt", iphone(CHAT))
        archive.writestr("00000012-PHOTO-2023.jpg", b"no picture")
    conversations, *_ = convert(chat_dir, "WhatsApp Chat - Dan.zip")
    assert [words(conversation) for conversation in conversations] == EXPECTED
    assert conversations[0]["chat"] == "Dan"


def test_the_ledger_says_what_was_found_and_what_it_means(chat_dir):
    _, report, _, result = convert(chat_dir, "chat.txt")
    (export,) = report["exports"]
    assert (export["date_order"], export["is_order_proven"], export["num_messages"]) == ("day/month/year", True, 11)
    assert {person["name"]: person["num_messages"] for person in export["participants"]} == {"Dan": 7, "Rut Levi": 4}
    assert export["participants"][1]["last"] == "2023-03-20T15:40:00"
    assert (
        [person["name"] for person in export["participants"] if person["is_imitated"]]
        == report["person"]
        == ["Rut Levi"]
    )
    assert report["redactions"] == {"PHONE": 1, "LINK": 1}
    assert (
        "\nPrivate data replaced, in kept messages, dropped messages and names: 1 [PHONE], 1 [LINK]\n" in result.stdout
    )
    assert report["conversations"] == {
        "num_conversations": 2,
        "num_turns": 5,
        "num_replies": 3,
        "num_openers": 1,
        "num_reply_chars": 56,
    }
    assert "too few" in report["advice"][0]
    assert report["advice"][0] in result.stdout


def test_prints_what_was_done_and_the_next_command(chat_dir):
    *_, result = convert(chat_dir, "chat.txt", "--saved-model-path", "my model")
    last = result.stdout.rstrip("\n").split("\n")[-1]
    assert last.startswith("Next: ")
    assert last.endswith("fine_tuning_model.py --path-to-data out/formatted_data.jsonl --saved-model-path 'my model'")
    assert "needs their consent" in result.stdout
    assert "Imitating Rut Levi (4 messages)" in result.stdout
    assert "out/formatted_data.jsonl" in result.stdout


def test_outputs_are_private(chat_dir):
    convert(chat_dir, "chat.txt")
    assert stat.S_IMODE((chat_dir / "out").stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (chat_dir / "out").iterdir()} == dict.fromkeys(
        OUTPUTS, 0o600
    )


def test_same_bytes_come_out_whatever_the_machine_is_set_to(chat_dir):
    senders = (
        "+44 20 7946 0958",
        "dan@example.com",
        "Dan",
        "Noa 12345678",
        "Rut Levi",
    )  # of each kind the report counts
    (chat_dir / "chat.txt").write_text(android([(at, who, "hi") for at, who in enumerate(senders)]), encoding="utf-8")

    def data(**variables):
        convert_env = os.environ | variables
        result = run(
            chat_dir, "chat.txt", "--imitate", "Rut Levi", "--path-to-data", "out/formatted_data.jsonl", env=convert_env
        )
        assert result.returncode == 0, result.stderr
        return [(chat_dir / "out" / name).read_bytes() for name in OUTPUTS]

    first = data(LC_ALL="C", TZ="Asia/Tokyo", PYTHONHASHSEED="1")
    assert first == data(LC_ALL="C.UTF-8", TZ="UTC", PYTHONHASHSEED="2") == data(PYTHONHASHSEED="3")


# ---- Options ----


def test_show_dropped_prints_messages_of_a_reason_only_on_request(chat_dir):
    *_, quiet = convert(chat_dir, "chat.txt")
    assert "anyone?" not in quiet.stdout
    *_, result = convert(chat_dir, "chat.txt", "--show-dropped", "no_reply_in_conversation")
    assert "      anyone?\n" in result.stdout
    assert "bye" not in result.stdout
    *_, result = convert(chat_dir, "chat.txt", "--show-dropped", "all")
    assert "      anyone?\n" in result.stdout
    assert "      bye\n" in result.stdout


def test_an_unknown_reason_is_refused_with_the_list(chat_dir):
    error = error_of(call(chat_dir, "chat.txt", "--imitate", "Rut Levi", "--show-dropped", "boring"))
    assert "boring is not a reason" in error


def test_no_redaction_keeps_the_number_and_warns(chat_dir):
    conversations, report, _, result = convert(chat_dir, "chat.txt", "--no-redaction")
    assert words(conversations[0])[-1] == ("assistant", "call me on 050-123-4567")
    assert report["redactions"] is None
    assert "the model may repeat them" in result.stderr


def test_dropped_messages_are_redacted_too(chat_dir):
    (chat_dir / "chat.txt").write_text(android([*CHAT, (800, "Dan", "my number is 050-765-4321")]), encoding="utf-8")
    _, _, dropped, _ = convert(chat_dir, "chat.txt")
    assert dropped[-1]["text"] == "my number is [PHONE]"


def test_hides_the_words_of_the_users_own_list(chat_dir):
    (chat_dir / "hide.txt").write_text("good\n\n", encoding="utf-8")
    conversations, *_ = convert(chat_dir, "chat.txt", "--hide", "hide.txt")
    assert "good" not in words(conversations[0])[1][1]


def test_a_country_that_does_not_exist_is_refused(chat_dir):
    error = error_of(
        call(chat_dir, "chat.txt", "--imitate", "Rut Levi", "--phone-region", "israel", "--path-to-data", "d.jsonl")
    )
    assert error == "load_whatsapp: --phone-region: ISRAEL is not a country; give its two letters, such as IL"
    conversations, *_ = convert(chat_dir, "chat.txt", "--phone-region", "il")
    assert words(conversations[0])[-1] == ("assistant", "call me on [PHONE]")


def test_one_of_several_chats_in_a_zip_is_chosen_by_name(chat_dir):
    with zipfile.ZipFile(chat_dir / "both.zip", "w") as archive:
        archive.writestr("WhatsApp Chat with Dan.txt", android(CHAT))
        archive.writestr("WhatsApp Chat with Noa.txt", android([(0, "Noa", "hi"), (1, "Rut Levi", "hey")]))
    result = call(chat_dir, "both.zip", "--imitate", "Rut Levi")
    assert "--chat" in error_of(result)
    assert "WhatsApp Chat with Noa.txt" in result.stderr
    (conversation,), *_ = convert(chat_dir, "both.zip", "--chat", "Noa")
    assert words(conversation) == [("user", "hi"), ("assistant", "hey")]


def test_an_old_code_page_is_named_by_the_error_and_read_when_given(chat_dir):
    (chat_dir / "chat.txt").write_bytes(android([(0, "דן", "שלום לך"), (1, "רות", "מה שלומך היום")]).encode("cp1255"))
    assert "--encoding cp1255" in error_of(call(chat_dir, "chat.txt", "--imitate", "רות"))
    (conversation,), *_ = convert(chat_dir, "chat.txt", "--encoding", "cp1255", imitate="רות")
    assert words(conversation) == [("user", "שלום לך"), ("assistant", "מה שלומך היום")]


def test_date_range_includes_both_days(chat_dir):
    days = [
        (0, "Dan", "one"),
        (1, "Rut", "a"),
        (1440, "Dan", "two"),
        (1441, "Rut", "b"),
        (2880, "Dan", "three"),
        (2881, "Rut", "c"),
    ]
    (chat_dir / "chat.txt").write_text(android(days), encoding="utf-8")
    conversations, report, *_ = convert(
        chat_dir, "chat.txt", "--since", "2023-03-21", "--until", "2023-03-21", imitate="Rut"
    )
    assert [words(conversation) for conversation in conversations] == [[("user", "two"), ("assistant", "b")]]
    assert report["messages"]["dropped"] == {"outside_dates": 4}


def test_cap_keeps_the_latest_messages_of_each_chat(chat_dir):
    conversations, report, *_ = convert(chat_dir, "chat.txt", "--max-messages-per-chat", "1")
    assert [words(conversation) for conversation in conversations] == [[("assistant", "good morning")]]
    assert report["messages"]["dropped"]["over_cap"] == 8


def test_the_silence_that_ends_a_conversation_is_an_option(chat_dir):
    conversations, *_ = convert(chat_dir, "chat.txt", "--conversation-gap-seconds", "99999")
    assert [len(conversation["messages"]) for conversation in conversations] == [6]


@pytest.mark.parametrize(("flag", "started"), [("--day-first", "2023-02-01"), ("--month-first", "2023-01-02")])
def test_an_open_order_of_day_and_month_is_said_and_can_be_decided(tmp_path, flag, started):
    (tmp_path / "chat.txt").write_text("01/02/2023, 09:00 - Dan: hi\n01/02/2023, 09:01 - Rut: hey\n", encoding="utf-8")
    *_, result = convert(tmp_path, "chat.txt", imitate="Rut")
    assert "day/month/year (guessed; set it with --day-first or --month-first)" in result.stdout
    assert "is a guess" in result.stderr
    conversations, *_ = convert(tmp_path, "chat.txt", flag, imitate="Rut")
    assert conversations[0]["started_at"].startswith(started)


def test_a_short_israeli_chat_raises_no_warning_of_its_dates(tmp_path):
    (tmp_path / "chat.txt").write_text("1.2.2024, 9:00 - דן: היי\n2.2.2024, 9:01 - רות: שלום\n", encoding="utf-8")
    *_, result = convert(tmp_path, "chat.txt", imitate="רות")
    assert "day/month/year (proven)" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("num_answers", "advice"), [(299, "299 answers are too few"), (300, "300 answers give a sketch")]
)
def test_what_opens_a_conversation_is_not_counted_as_an_answer(tmp_path, num_answers, advice):
    messages = [message for n in range(num_answers) for message in ((200 * n, "Dan", "a"), (200 * n + 1, "Rut", "b"))]
    messages += [(200 * n, "Rut", "hello?") for n in range(num_answers, num_answers + 50)]
    (tmp_path / "chat.txt").write_text(android(messages), encoding="utf-8")
    _, report, _, result = convert(tmp_path, "chat.txt", imitate="Rut")
    assert report["conversations"]["num_replies"] == num_answers + 50
    assert f"{num_answers + 50} replies of Rut" in result.stdout
    assert "50 of which open a conversation" in result.stdout
    assert report["advice"][0].startswith(advice)


def test_unknown_placeholders_of_several_senders_are_dropped_and_listed(chat_dir):
    unknown = [
        (10, "Dan", "<Média mellőzve>"),
        (11, "Rut Levi", "<Média mellőzve>"),
        (12, "Dan", "<Média mellőzve>"),
        (13, "Dan", "<my joke>"),
    ]
    (chat_dir / "chat.txt").write_text(android([*CHAT[:9], *unknown, (14, "Rut Levi", "haha")]), encoding="utf-8")
    conversations, report, _, result = convert(chat_dir, "chat.txt")
    assert report["messages"]["dropped"]["unknown_placeholder"] == 3
    assert report["unknown_placeholders"] == {"<Média mellőzve>": 3}
    assert "<Média mellőzve> (3 times)" in result.stdout
    assert "<my joke>" in words(conversations[0])[-2][1]


# ---- Groups, several exports ----


def test_in_a_group_the_others_names_stand_before_their_words(tmp_path):
    group = [
        (0, "Dan", "hi"),
        (1, "+972 50-765-4321", "who is this?"),
        (2, "Rut", "me"),
        (3, "Dan", "ok"),
        (4, "Rut", "bye"),
    ]
    (tmp_path / "WhatsApp Chat with Friends.txt").write_text(android(group), encoding="utf-8")
    (conversation,), *_ = convert(tmp_path, "WhatsApp Chat with Friends.txt", imitate="Rut")
    assert words(conversation) == [
        ("user", "Dan: hi\n[PHONE 1]: who is this?"),
        ("assistant", "me"),
        ("user", "Dan: ok"),
        ("assistant", "bye"),
    ]
    assert conversation["with"] == ["Dan", "[PHONE 1]"]


def test_each_conversation_says_who_else_wrote_in_it(chat_dir):
    conversations, *_ = convert(chat_dir, "chat.txt")
    (person,) = {name for conversation in conversations for name in conversation["with"]}
    assert person != "Rut Levi"
    assert conversations[-1]["with"] == []  # the imitated person alone


NUMBERS = ("+972 50-765-4321", "\u202a+44\xa020\xa07946\xa00958\u202c")
TWO_NUMBERS = [
    (0, "Rut", "hi"),
    (1, NUMBERS[1], "who is this?"),
    (2, NUMBERS[0], "ask +972 54-111-2222"),
    (3, "Rut", "me"),
    (4, NUMBERS[1], "ok"),
    (5, "Rut", "bye"),
    (6, NUMBERS[0], "..."),
]


def test_two_unsaved_numbers_stay_two_people(tmp_path):
    (tmp_path / "WhatsApp Chat with Friends.txt").write_text(android(TWO_NUMBERS), encoding="utf-8")
    (conversation,), report, dropped, _ = convert(tmp_path, "WhatsApp Chat with Friends.txt", imitate="Rut")
    assert conversation["with"] == ["[PHONE 1]", "[PHONE 2]"]
    assert words(conversation)[1:4] == [
        ("user", "[PHONE 1]: who is this?\n[PHONE 2]: ask [PHONE]"),
        ("assistant", "me"),
        ("user", "[PHONE 1]: ok"),
    ]
    assert [message["sender"] for message in dropped] == ["[PHONE 2]"]
    people = {person["name"]: person["num_messages"] for person in report["exports"][0]["participants"]}
    assert people == {"Rut": 3, "[PHONE 1]": 2, "[PHONE 2]": 2}
    assert report["redactions"] == {"PHONE": 3}
    written = "".join((tmp_path / "out" / name).read_text(encoding="utf-8") for name in OUTPUTS)
    assert not any(part in written for part in ("7946", "765-4321", "111-2222"))


@pytest.mark.parametrize("typed", ["[PHONE 2]", "[phone 2]", "+972 50-765-4321", "+972507654321"])
def test_one_of_two_unsaved_numbers_can_be_imitated(tmp_path, typed):
    (tmp_path / "chat.txt").write_text(android(TWO_NUMBERS), encoding="utf-8")
    (conversation,), report, *_, result = convert(tmp_path, "chat.txt", imitate=typed)
    assert report["person"] == ["[PHONE 2]"]
    assert "Imitating [PHONE 2] +972 50-765-4321 (2 messages) of chat.txt" in result.stdout
    assert words(conversation)[0] == ("user", "Rut: hi\n[PHONE 1]: who is this?")
    assert words(conversation)[1] == ("assistant", "ask [PHONE]")


def test_the_list_of_whom_to_imitate_tells_unsaved_numbers_apart(tmp_path):
    (tmp_path / "chat.txt").write_text(android(TWO_NUMBERS), encoding="utf-8")
    result = call(tmp_path, "chat.txt")
    error_of(result)
    assert "2 messages  [PHONE 1] +44 20 7946 0958\n        2 messages  [PHONE 2] +972 50-765-4321\n" in result.stderr
    assert "nobody is called" in error_of(call(tmp_path, "chat.txt", "--imitate", "[PHONE 3]"))


def test_numbers_count_by_first_appearance_over_all_exports(tmp_path):
    (tmp_path / "new.txt").write_text(android([(900, NUMBERS[0], "a"), (901, "Rut", "b")]), encoding="utf-8")
    (tmp_path / "old.txt").write_text(android([(0, NUMBERS[1], "c"), (1, "Rut", "d")]), encoding="utf-8")
    _, report, *_ = convert(tmp_path, "new.txt", "old.txt", imitate="Rut")
    names = [[person["name"] for person in export["participants"]] for export in report["exports"]]
    assert names == [["[PHONE 2]", "Rut"], ["[PHONE 1]", "Rut"]]


def test_a_chat_called_by_the_number_of_its_writer_has_its_placeholder(tmp_path):
    name = "WhatsApp Chat with +972 50-765-4321.txt"
    (tmp_path / name).write_text(android([(0, NUMBERS[0], "a"), (1, "Rut", "b")]), encoding="utf-8")
    (conversation,), *_ = convert(tmp_path, name, imitate="Rut")
    assert conversation["chat"] == "[PHONE 1]"
    assert "765" not in "".join((tmp_path / "out" / name).read_text(encoding="utf-8") for name in OUTPUTS)


def test_values_in_the_name_of_a_group_and_in_its_notices_are_hidden(tmp_path):
    name = "WhatsApp Chat with Trip 052-1234567.txt"
    notice = '20/03/2023, 08:00 - Dan created group "Trip 052-1234567"\n'
    (tmp_path / name).write_text(notice + android(CHAT), encoding="utf-8")
    (conversation, _), report, dropped, _ = convert(tmp_path, name)
    assert conversation["chat"] == report["exports"][0]["chat"] == "Trip [PHONE]"
    assert dropped[0]["text"] == 'Dan created group "Trip [PHONE]"'
    assert "1234567" not in "".join((tmp_path / "out" / name).read_text(encoding="utf-8") for name in OUTPUTS)


def test_people_whose_names_are_hidden_stay_two_people(tmp_path):
    group = [(0, "Dan", "a"), (1, "Noa", "b"), (2, "Rut", "c")]
    (tmp_path / "chat.txt").write_text(android(group), encoding="utf-8")
    (tmp_path / "hide.txt").write_text("Dan\nNoa\n", encoding="utf-8")
    (conversation,), *_ = convert(tmp_path, "chat.txt", "--hide", "hide.txt", imitate="Rut")
    assert words(conversation)[0] == ("user", "[HIDDEN 1]: a\n[HIDDEN 2]: b")


def test_overlapping_exports_of_one_chat_are_merged_without_duplicates(tmp_path):
    messages = [(n, "Rut" if n % 2 else "Dan", f"word {n % 7}") for n in range(40)]
    messages.insert(21, messages[20])  # sent twice within a minute: it stays twice
    (tmp_path / "new.txt").write_text(android(messages[15:]), encoding="utf-8")
    (tmp_path / "old.txt").write_text(android(messages[:30]), encoding="utf-8")
    (tmp_path / "whole.txt").write_text(android(messages), encoding="utf-8")
    merged, report, *_ = convert(tmp_path, "new.txt", "old.txt", imitate="Rut")
    whole, *_ = convert(tmp_path, "whole.txt", imitate="Rut")
    assert [conversation["messages"] for conversation in merged] == [conversation["messages"] for conversation in whole]
    assert report["messages"]["dropped"] == {"duplicate": 15}


def test_different_chats_with_the_same_people_and_a_forwarded_message_stay_apart(tmp_path):
    one = [(n, "Rut" if n % 2 else "Dan", f"one {n}") for n in range(40)]
    two = [(n, "Rut" if n % 2 else "Dan", f"two {n}") for n in range(40)]
    two[20] = one[20]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/_chat.txt").write_text(android(one), encoding="utf-8")
    (tmp_path / "b/_chat.txt").write_text(android(two), encoding="utf-8")
    conversations, report, *_ = convert(tmp_path, "a/_chat.txt", "b/_chat.txt", imitate="Rut")
    assert [conversation["chat"] for conversation in conversations] == ["a", "b"]
    assert "duplicate" not in report["messages"]["dropped"]


def test_a_folder_of_exports_is_read_and_the_owner_is_one_person_in_all(tmp_path):
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports/WhatsApp Chat with Dan.txt").write_text(
        android([(0, "Dan", "a"), (1, "Rut", "b")]), encoding="utf-8"
    )
    (tmp_path / "exports/WhatsApp Chat with Noa.txt").write_text(
        android([(0, "Noa", "c"), (1, "Rut Levi", "d")]), encoding="utf-8"
    )
    (tmp_path / "exports/notes.txt").write_text("milk, bread\n", encoding="utf-8")
    conversations, report, _, result = convert(tmp_path, "exports", "--imitate", "Rut Levi", imitate="Rut")
    assert [words(conversation) for conversation in conversations] == [
        [("user", "a"), ("assistant", "b")],
        [("user", "c"), ("assistant", "d")],
    ]
    assert [conversation["chat"] for conversation in conversations] == ["Dan", "Noa"]
    assert report["person"] == ["Rut", "Rut Levi"]
    assert "Imitating Rut Levi (1 message) of exports/WhatsApp Chat with Noa.txt" in result.stdout


def test_one_file_given_twice_is_read_once(chat_dir):
    _, report, *_ = convert(chat_dir, "chat.txt", chat_dir / "chat.txt")
    assert report["messages"]["parsed"] == 11


# ---- Who is imitated ----


@pytest.mark.parametrize("typed", ["rut levi", "RUT LEVI", "~ Rut\u00a0Levi", "\u200fRut Levi\u200f"])
def test_a_name_is_found_whatever_its_case_and_invisible_marks(chat_dir, typed):
    _, report, *_ = convert(chat_dir, "chat.txt", imitate=typed)
    assert report["person"] == ["Rut Levi"]


def test_without_a_name_or_a_terminal_the_error_lists_everybody_and_the_command(chat_dir):
    result = run(chat_dir, "chat.txt")
    assert error_of(result) == "load_whatsapp: chat.txt: --imitate NAME is missing; name one of the participants"
    assert "      7 messages  Dan\n        4 messages  Rut Levi\n" in result.stderr
    command = result.stderr.rstrip("\n").rpartition("as in: ")[2]
    assert command.endswith("load_whatsapp.py chat.txt --imitate Dan")


@pytest.mark.parametrize(("typed", "nearest"), [("Rut Levy", "Rut Levi"), ("Rut", "Rut Levi"), ("Dana", "Dan")])
def test_an_unknown_name_is_answered_with_the_nearest_and_never_guessed(chat_dir, typed, nearest):
    result = call(chat_dir, "chat.txt", "--imitate", typed, "--path-to-data", "out/data.jsonl")
    assert error_of(result) == f'load_whatsapp: chat.txt: nobody is called "{typed}"; did you mean "{nearest}"?'
    assert "7 messages  Dan" in result.stderr
    assert not (chat_dir / "out").exists()


def test_a_name_that_fits_two_people_is_refused(chat_dir):
    (chat_dir / "chat.txt").write_text(android([(0, "RUT", "hi"), (1, "rut", "hey")]), encoding="utf-8")
    assert "matches several people" in error_of(call(chat_dir, "chat.txt", "--imitate", "Rut"))


def test_a_long_list_of_participants_is_cut_and_cannot_act_on_the_terminal(tmp_path):
    people = [(n, f"person {n}", "hi") for n in range(60)] + [(n, "evil \x1b[2J\u202eman", "x") for n in range(60, 70)]
    (tmp_path / "chat.txt").write_text(android(people), encoding="utf-8")
    result = call(tmp_path, "chat.txt")
    error_of(result)
    assert result.stderr.count(" messages  ") == 20
    assert "and 41 more" in result.stderr
    assert not set("\x1b\x9b\u202e") & set(result.stderr)


def at_terminal(folder, answers, *arguments):
    """Run the stage at a terminal of its own, type `answers` at its question; return (status, all that was shown)."""
    process_id, terminal = pty.fork()
    if process_id == 0:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background shell lets its children ignore it
        signal.alarm(30)
        os.execv(sys.executable, [sys.executable, str(SCRIPT), *map(str, arguments)])
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while True:
            # Whenever it is silent: between its prompt and its wait, a program misses a Ctrl-C.
            if b"Number or name: " in shown and not select.select([terminal], [], [], 0.2)[0]:
                os.write(terminal, answers)
            elif piece := os.read(terminal, 4096):
                shown += piece
            else:
                break
    return os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]), shown.decode("utf-8", "replace")


@pytest.mark.parametrize("answer", [b"2\n", b"rut levi\n", b"7\nnobody\n\n2\n"])
def test_at_a_terminal_the_person_is_chosen_by_number_or_name(chat_dir, answer):
    status, shown = at_terminal(chat_dir, answer, "chat.txt", "--path-to-data", "out/formatted_data.jsonl")
    assert status == 0, shown
    assert "2        4 messages  Rut Levi" in shown
    assert read_outputs(chat_dir / "out")[1]["person"] == ["Rut Levi"]


def test_leaving_the_question_unanswered_changes_nothing(chat_dir):
    status, shown = at_terminal(chat_dir, b"\x04", "chat.txt", "--path-to-data", "out/formatted_data.jsonl")
    assert status == 1, shown
    assert "nobody was chosen to imitate" in shown
    assert not (chat_dir / "out").exists()


def test_ctrl_c_at_the_question_is_130(chat_dir):
    status, shown = at_terminal(chat_dir, b"\x03", "chat.txt")
    assert status == 130, shown


# ---- Bad input ----

NOT_EXPORTS = {
    "notes": (b"buy milk\ncall mum at 12:30\n", "no WhatsApp messages found"),
    "cut zip": (b"PK\x03\x04" + bytes(40), "zip"),
    "notices alone": (b'01/02/2023, 09:00 - Dan created group "x"\n', "nobody wrote"),
    "owner alone": (b"20/03/2023, 09:00 - Rut Levi: note to self\n", "needs two"),
    "no words left": (
        b"20/03/2023, 09:00 - Rut Levi: <Media omitted>\n20/03/2023, 09:01 - Dan: hi\n",
        "no message of the imitated person is left",
    ),
}


@pytest.mark.parametrize("name", NOT_EXPORTS)
def test_what_is_no_usable_export_is_refused_and_the_old_output_stays(chat_dir, name):
    content, problem = NOT_EXPORTS[name]
    convert(chat_dir, "chat.txt")
    before = {path: path.read_bytes() for path in (chat_dir / "out").iterdir()}
    (chat_dir / "given.txt").write_bytes(content)
    result = call(chat_dir, "given.txt", "--imitate", "Rut Levi", "--path-to-data", "out/formatted_data.jsonl")
    error = error_of(result)
    assert error.startswith("load_whatsapp: given.txt: ")
    assert problem in error
    assert "; " in error  # what to do
    assert {path: path.read_bytes() for path in (chat_dir / "out").iterdir()} == before


def test_no_reply_left_shows_where_the_messages_went(chat_dir):
    (chat_dir / "given.txt").write_bytes(NOT_EXPORTS["no words left"][0])
    result = call(chat_dir, "given.txt", "--imitate", "Rut Levi", "--path-to-data", "out/formatted_data.jsonl")
    assert "media" in result.stderr
    assert "no_reply_in_conversation" in result.stderr


def test_what_is_no_export_is_shown_by_its_shape_without_its_words(chat_dir):
    (chat_dir / "given.txt").write_text("Dear diary 12\nסוד: 34\n", encoding="utf-8")
    result = call(chat_dir, "given.txt", "--imitate", "Rut")
    error_of(result)
    assert "  xxxx xxxxx 00\n  xxx: 00\n" in result.stderr
    assert "diary" not in result.stderr


@pytest.mark.parametrize("kind", ["missing", "pipe"])
def test_what_cannot_be_read_is_refused_at_once(chat_dir, kind):
    if kind == "pipe":
        os.mkfifo(chat_dir / "given.txt")
    error = error_of(run(chat_dir, "given.txt", "--imitate", "Rut", timeout=20))
    assert error.startswith("load_whatsapp: given.txt: ")


def test_without_an_export_the_error_says_where_to_put_one(project_copy):
    result = run(project_copy, script="src/data_preprocessing/load_whatsapp.py")
    error = error_of(result)
    assert error.startswith("load_whatsapp: src/data_preprocessing/WhatsappChatOriginal.txt: not found; ")
    assert "Export chat" in error


@pytest.mark.parametrize(
    "arguments", [["--since", "yesterday"], ["--turn-gap-seconds", "0"], ["--colour"], ["--day-first", "--month-first"]]
)
def test_wrong_usage_is_2(arguments):
    with pytest.raises(SystemExit) as leaving:
        load_whatsapp.main(arguments)
    assert leaving.value.code == 2


@pytest.mark.parametrize("link", ["path", "symbolic", "hard", "ledger"])
def test_the_export_is_never_its_own_output(chat_dir, link):
    output = chat_dir / "out.jsonl"
    if link == "path":
        output = chat_dir / "chat.txt"
    elif link == "symbolic":
        output.symlink_to(chat_dir / "chat.txt")
    elif link == "hard":
        output.hardlink_to(chat_dir / "chat.txt")
    else:
        (chat_dir / "dropped_messages.jsonl").hardlink_to(chat_dir / "chat.txt")
    before = (chat_dir / "chat.txt").read_bytes()
    error = error_of(call(chat_dir, "chat.txt", "--imitate", "Rut Levi", "--path-to-data", output))
    assert "would overwrite the export itself" in error
    assert (chat_dir / "chat.txt").read_bytes() == before


UNUSABLE_OUTPUTS = {  # how it comes about in the place of the output, and what is said
    "folder": (Path.mkdir, "out.jsonl: is not a regular file"),
    "pipe": (os.mkfifo, "out.jsonl: is not a regular file"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "out.jsonl: is a link to a missing file"),
    "link to a device": (lambda path: path.symlink_to("/dev/full"), "out.jsonl: is not a regular file"),
    "below a file": (Path.touch, "out.jsonl: is a file, but a folder is needed"),
}


@pytest.mark.parametrize("kind", UNUSABLE_OUTPUTS)
def test_an_output_that_cannot_be_replaced_is_refused_before_the_work(chat_dir, kind):
    make, problem = UNUSABLE_OUTPUTS[kind]
    make(chat_dir / "out.jsonl")
    output = "out.jsonl/data.jsonl" if kind == "below a file" else "out.jsonl"
    result = call(chat_dir, "chat.txt", "--imitate", "Rut Levi", "--path-to-data", output)
    assert error_of(result).startswith(f"load_whatsapp: {problem}; ")
    assert result.stdout == ""


@pytest.mark.parametrize("name", OUTPUTS[1:])
def test_the_data_cannot_take_the_name_of_a_file_of_the_ledger(chat_dir, name):
    result = call(chat_dir, "chat.txt", "--imitate", "Rut Levi", "--path-to-data", f"out/{name}")
    assert error_of(result).startswith(f"load_whatsapp: out/{name}: is the name of a file of the ledger; ")
    assert not (chat_dir / "out").exists()


# ---- Accidents ----


@pytest.fixture
def long_chat_dir(chat_dir):
    """The same folder with an export that takes the stage a while, and an old output."""
    messages = [(n, "Rut" if n % 3 else "Dan", f"word number {n} of a made-up chat") for n in range(NUM_LONG)]
    (chat_dir / "long.txt").write_text(android(messages), encoding="utf-8")
    (chat_dir / "out").mkdir(mode=0o700)
    (chat_dir / "out/formatted_data.jsonl").write_text("old\n")
    return chat_dir


def test_a_full_disk_leaves_the_old_output(long_chat_dir):
    limit = 100_000  # bytes a file may have: the full data has more
    result = run(
        long_chat_dir, "long.txt", "--imitate", "Rut", "--path-to-data", "out/formatted_data.jsonl",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert "load_whatsapp: out/" in error_of(result)
    assert "free some space" in result.stderr
    assert {path.name: path.read_text() for path in (long_chat_dir / "out").iterdir()} == {
        "formatted_data.jsonl": "old\n"
    }


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_its_status_and_leaves_the_old_output(long_chat_dir, number, status):
    process = start_long_run(long_chat_dir)
    wait_for_temporary_file(long_chat_dir / "out", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    assert {path.name: path.read_text() for path in (long_chat_dir / "out").iterdir()} == {
        "formatted_data.jsonl": "old\n"
    }


def start_long_run(folder):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "long.txt", "--imitate", "Rut", "--path-to-data", "out/formatted_data.jsonl"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def wait_for_temporary_file(out, process):
    while process.poll() is None and not list(out.glob(".unfinished-*")):
        time.sleep(0.002)


@pytest.mark.slow
def test_two_runs_at_once_never_mix(long_chat_dir):
    first = start_long_run(long_chat_dir)
    wait_for_temporary_file(long_chat_dir / "out", first)
    first.send_signal(signal.SIGSTOP)  # on a busy machine it would be done before the second begins
    second = run(long_chat_dir, "chat.txt", "--imitate", "Rut Levi", "--path-to-data", "out/formatted_data.jsonl")
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert "is in use by another run" in error_of(second)
    assert read_outputs(long_chat_dir / "out")[1]["messages"]["parsed"] == NUM_LONG


def test_a_reader_that_leaves_does_not_harm_the_work(chat_dir):
    command = (
        f"{sys.executable} {SCRIPT} chat.txt --imitate 'Rut Levi' --path-to-data out/formatted_data.jsonl | head -n 1"
    )
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=chat_dir, capture_output=True, text=True)
    assert result.stderr == ""
    assert result.stdout.startswith("Read chat.txt")
    assert len(read_outputs(chat_dir / "out")[0]) == 2


@pytest.mark.slow
def test_killed_at_random_moments_it_leaves_the_old_output_or_the_new_one(long_chat_dir):
    started = time.monotonic()
    assert (
        run(long_chat_dir, "long.txt", "--imitate", "Rut", "--path-to-data", "whole/formatted_data.jsonl").returncode
        == 0
    )
    duration = time.monotonic() - started
    new = (long_chat_dir / "whole/formatted_data.jsonl").read_bytes()
    output = long_chat_dir / "out/formatted_data.jsonl"
    for kill in range(20):
        output.write_text("old\n")
        process = start_long_run(long_chat_dir)
        time.sleep(duration * (kill + 0.5) / 20)
        process.kill()
        process.communicate()
        assert output.read_bytes() in (b"old\n", new)
    run(long_chat_dir, "long.txt", "--imitate", "Rut", "--path-to-data", "out/formatted_data.jsonl")
    assert {path.name for path in (long_chat_dir / "out").iterdir()} == set(OUTPUTS)  # those of the dead are gone


# ---- Starting it ----


@pytest.mark.parametrize("starter", [["bash", "{}"], ["{}"], [sys.executable, "{}"], ["sh", "{}"]])
def test_the_starter_runs_from_any_folder_by_shell_and_by_python(project_copy, tmp_path, starter):
    project = project_copy.rename(tmp_path / "a project")
    (project / "src/data_preprocessing/WhatsappChatOriginal.txt").write_text(android(CHAT), encoding="utf-8")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    command = [part.format(project / "preprocess_start.sh") for part in starter]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        [*command, "--imitate", "Rut Levi"], cwd=elsewhere, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert len(read_outputs(project / "src/data_preprocessing/final_outputs")[0]) == 2
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("", "bash preprocess_start.sh"),
        ("", "sh preprocess_start.sh"),
        ("", "./preprocess_start.sh"),
        ("src/data_preprocessing", "python3 preprocess_start.sh"),
        ("src/data_preprocessing", "bash preprocess_start.sh"),
        ("src/data_preprocessing", "./preprocess_start.sh"),
        ("src", "python3 ../preprocess_start.sh"),
        ("src", "sh data_preprocessing/../../preprocess_start.sh"),
    ],
)
def test_the_published_steps_work_and_errors_recommend_what_was_typed(project_copy, run_command, folder, command):
    (project_copy / "src/data_preprocessing/WhatsappChatOriginal.txt").write_text(android(CHAT), encoding="utf-8")
    result = run_command(command, project_copy / folder)
    error_of(result)
    recommended = result.stderr.rstrip("\n").rpartition("as in: ")[2]
    assert recommended in (f"{command} --imitate Dan", f"{command.removeprefix('sh ')} --imitate Dan")
    result = run_command(f"{command} --imitate 'Rut Levi'", project_copy / folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(read_outputs(project_copy / "src/data_preprocessing/final_outputs")[0]) == 2


def test_a_command_is_recommended_in_a_form_that_can_be_pasted(project_copy, tmp_path, run_command):
    project = project_copy.rename(tmp_path / "a project")
    result = run_command(f"bash '{project}/preprocess_start.sh' 'my chat.txt'", tmp_path)
    assert "not found; check the path" in error_of(result)
    (project / "src/data_preprocessing/WhatsappChatOriginal.txt").write_text(android(CHAT), encoding="utf-8")
    result = run_command(f"bash '{project}/preprocess_start.sh'", tmp_path)
    assert f"as in: bash '{project}/preprocess_start.sh' --imitate Dan" in result.stderr


def test_a_misspelled_export_is_answered_with_the_nearest(chat_dir):
    error = error_of(run(chat_dir, "chatt.txt", "--imitate", "Rut"))
    assert error == "load_whatsapp: chatt.txt: not found; check the path, or did you mean chat.txt?"


@pytest.mark.parametrize(
    "name", ["WhatsAppChatOriginal.txt", "WhatsappChatOriginal.txt.txt", "whatsappChatOriginal.TXT"]
)
def test_a_misspelled_default_export_is_named(project_copy, name):
    (project_copy / "src/data_preprocessing" / name).write_text(android(CHAT), encoding="utf-8")
    result = run(project_copy, script="src/data_preprocessing/load_whatsapp.py")
    assert f"or did you mean src/data_preprocessing/{name}?" in error_of(result)


def test_of_two_exports_in_the_default_place_the_one_that_is_not_read_is_named(project_copy):
    """A new zip beside the old text: the old one was read, and only its name said so."""
    folder = project_copy / "src/data_preprocessing"
    (folder / "WhatsappChatOriginal.txt").write_text(android(CHAT), encoding="utf-8")
    (folder / "WhatsappChatOriginal.zip").write_bytes(b"")
    result = run(project_copy, "--imitate", "Dan", script="src/data_preprocessing/load_whatsapp.py")
    assert result.returncode == 0
    assert (
        "WhatsappChatOriginal.zip: is not read, since WhatsappChatOriginal.txt lies beside it; remove" in result.stderr
    )


def test_missing_packages_are_named_with_the_cure(chat_dir):
    result = subprocess.run(
        [sys.executable, "-S", str(SCRIPT), "chat.txt"], cwd=chat_dir, capture_output=True, text=True
    )
    error = error_of(result)
    assert error.startswith("load_whatsapp: requirements.txt: phonenumberslite, python-stdnum, tqdm not installed")
    assert "; run " in error


def test_the_stage_imports_no_heavy_library(chat_dir):
    code = (
        "import sys, runpy; sys.argv[0] = 'load_whatsapp.py'\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "finally: print(sorted({'torch', 'transformers', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "chat.txt", "--imitate", "Rut Levi", "--path-to-data", "out/data.jsonl"],
        cwd=chat_dir, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(SCRIPT.parent)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.rstrip().endswith("[]")
