"""The digest as its users meet it: run as a program, on made-up exports, in a folder of its own."""

import html
import itertools
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from datetime import date, datetime, timedelta
from pathlib import Path

import chat_digest
import pytest
from calls_of_stage1 import call_script
from icalendar import Calendar
from killing_disk import run_killed

SCRIPT = Path(chat_digest.__file__)
START = datetime(2024, 12, 17, 9, 30)  # a Tuesday
CHAT = [  # (hours after the start, sender, text)
    (0, "Ruth", "איפה המפתח של המחסן?"),
    (0.1, "Ruth", "אני צריכה אותו מחר בשמונה בערב"),
    (24, "Ruth", "<Media omitted>"),
    (25, "Noam", "I'll send you the file"),
    (26, "Noam", "sent it"),
    (48, "Noam", "did you get it?"),
    (48.1, "Ruth", "אשלח לך תשובה ביום שישי ב-17:30"),
    (48.2, "Ruth", "next week, maybe"),
    (48.3, "Ruth", "the party is on 24.12"),
]


def export(messages=CHAT, start=START):
    return "".join(
        f"{start + timedelta(hours=hours):%d/%m/%Y, %H:%M} - {who}: {text}\n" for hours, who, text in messages
    )


def call(folder, *arguments):
    """Run the script within this process, and return what its own process would."""
    return call_script(chat_digest, folder, arguments)


def report_of(folder, *arguments):
    done = call(folder, "chat.txt", "--me", "Noam", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def error_of(done):
    """Return the error, after checking the contract of every error."""
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("Read ") or not done.stdout
    first, *details = done.stderr.rstrip("\n").split("\n")
    assert re.match(r"chat_digest: .+: .+", first)
    assert all(line.startswith("  ") for line in details)
    return done.stderr


@pytest.fixture
def chat_dir(tmp_path):
    """A folder with the made-up chat in chat.txt."""
    (tmp_path / "chat.txt").write_text(export(), encoding="utf-8")
    return tmp_path


# ---- What it finds ----


def test_every_claim_quotes_the_message(chat_dir):
    report = report_of(chat_dir)
    (promise,) = report["promises"]["of_mine"]
    assert (promise["text"], promise["looks_kept_by"]["text"]) == ("I'll send you the file", "sent it")
    assert [plan["text"] for plan in report["plans"]["not_certain"]] == ["next week, maybe"]
    assert [(plan["date"], plan["time"], plan["words"]) for plan in report["plans"]["ahead"]] == [
        ("2024-12-20", "17:30", "ביום שישי ב-17:30"),
        ("2024-12-24", None, "on 24.12"),
    ]
    assert [plan["date"] for plan in report["plans"]["past"]] == ["2024-12-18"]


def test_a_question_is_open_until_its_answer(chat_dir):
    said = [(0, "Ruth", "where is the key?"), (0.1, "Ruth", "I need it"), (3, "Ruth", "hello"), (30, "Noam", "yes")]
    (chat_dir / "chat.txt").write_text(export(said), encoding="utf-8")
    (question,) = report_of(chat_dir)["unanswered"]["to_me"]
    assert question["text"] == "where is the key?"
    assert [message["text"] for message in question["since"]] == ["I need it", "hello"]


def test_the_page_names_what_is_found_and_what_is_not(chat_dir):
    shown = call(chat_dir, "chat.txt", "--me", "noam").stdout
    assert "Your questions without an answer: nothing found" in shown
    assert "✓ 2024-12-18 10:30" in shown
    assert "looks kept: 2024-12-18 11:30" in shown
    assert "Fri 2024-12-20 17:30" in shown


def test_each_quote_on_the_page_is_isolated_from_its_line(chat_dir):
    shown = call(chat_dir, "chat.txt", "--me", "Noam").stdout
    (line,) = [line for line in shown.split("\n") if "· 2024" in line]
    assert line.startswith("\u200e")
    assert "\u2068אשלח לך תשובה ביום שישי ב-17:30\u2069" in line


def test_a_long_list_is_cut_and_says_so(chat_dir):
    said = [(3 * number, "Noam", f"I'll call number {number}") for number in range(30)] + [(99, "Ruth", "hi")]
    (chat_dir / "chat.txt").write_text(export(said), encoding="utf-8")
    shown = call(chat_dir, "chat.txt", "--me", "Noam", "--show", "3").stdout
    assert "What you promised: 30" in shown
    assert "and 27 more" in shown
    assert shown.count("I'll call number") == 3


def test_days_count_back_from_the_end_of_the_export(chat_dir):
    report = report_of(chat_dir, "--since", "1d")
    assert report["first_message"] == "2024-12-18T10:30:00"
    assert report_of(chat_dir, "--since", "2024-12-19")["first_message"] == "2024-12-19T09:30:00"
    assert report_of(chat_dir, "--since", "99999d")["first_message"] == "2024-12-17T09:30:00"


def test_the_end_is_the_latest_message_wherever_it_stands(chat_dir):
    (chat_dir / "chat.txt").write_text(export(CHAT[5:] + CHAT[:5]), encoding="utf-8")
    report = report_of(chat_dir)
    assert (report["first_message"], report["last_message"]) == ("2024-12-17T09:30:00", "2024-12-19T09:48:00")
    assert [plan["date"] for plan in report["plans"]["ahead"]] == ["2024-12-20", "2024-12-24"]
    assert report_of(chat_dir, "--since", "1d")["first_message"] == "2024-12-18T10:30:00"


def test_a_month_first_export_has_month_first_dates_in_its_messages(chat_dir):
    said = [(0, "Ruth", "hi"), (24 * 9, "Noam", "ok"), (24 * 9.1, "Ruth", "see you on 3/4")]
    text = "".join(f"{START + timedelta(hours=h):%m/%d/%Y, %H:%M} - {who}: {text}\n" for h, who, text in said)
    (chat_dir / "chat.txt").write_text(text, encoding="utf-8")
    assert [plan["date"] for plan in report_of(chat_dir)["plans"]["ahead"]] == ["2025-03-04"]


def test_a_zip_and_a_group_are_read_as_stage_1_reads_them(chat_dir):
    said = [
        (0, "Ruth", "who has a tent?"),
        (0.1, "Dan", "me"),
        (9, "Ruth", "@Dan can you bring it?"),
        (20, "Noam", "ok"),
    ]
    with zipfile.ZipFile(chat_dir / "WhatsApp Chat with Trip.zip", "w") as archive:
        archive.writestr("_chat.txt", export([*said, (21, "Dan", "hmm"), (40, "Ruth", "who drives?")]))
    done = call(chat_dir, "WhatsApp Chat with Trip.zip", "--me", "Noam", "--json")
    report = json.loads(done.stdout)
    assert [question["text"] for question in report["unanswered"]["to_me"]] == ["who drives?"]
    assert report["figures"][0]["chat"] == "Trip"


def test_two_chats_are_kept_apart(chat_dir):
    (chat_dir / "WhatsApp Chat with Dan.txt").write_text(
        export([(0, "Dan", "I'll call you"), (1, "Noam", "ok")]), encoding="utf-8"
    )
    done = call(chat_dir, "chat.txt", "WhatsApp Chat with Dan.txt", "--me", "Noam", "--json")
    report = json.loads(done.stdout)
    assert {promise["chat"] for promise in report["promises"]["of_others"]} == {"Dan", "chat"}


# ---- Files ----


def test_files_are_private_and_nothing_else_is_written(chat_dir):
    run = [sys.executable, SCRIPT, "chat.txt", "--me", "Noam", "--html", "digest.html", "--ics", "plans.ics"]
    done = subprocess.run(run, cwd=chat_dir, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in chat_dir.iterdir()) == ["chat.txt", "digest.html", "plans.ics"]
    for name in ("digest.html", "plans.ics"):
        assert stat.S_IMODE((chat_dir / name).stat().st_mode) == 0o600


def test_the_calendar_reads_back_as_the_plans(chat_dir):
    call(chat_dir, "chat.txt", "--me", "Noam", "--ics", "plans.ics", "--html", "digest.html")
    content = (chat_dir / "plans.ics").read_bytes()
    first, second = Calendar.from_ical(content).walk("VEVENT")
    assert first["dtstart"].dt == datetime(2024, 12, 20, 17, 30)
    assert second["dtstart"].dt == date(2024, 12, 24)
    assert "אשלח לך תשובה ביום שישי ב-17:30" in first["description"]
    assert "Ruth" in first["description"]
    for event in (first, second):
        (alarm,) = event.walk("VALARM")
        assert alarm["trigger"].dt == timedelta(days=-1)
        assert event["dtend"].dt > event["dtstart"].dt
    assert first["uid"] != second["uid"]
    lines = content.split(b"\r\n")
    assert all(len(line) <= 75 for line in lines)
    call(chat_dir, "chat.txt", "--me", "Noam", "--ics", "plans.ics", "--json")
    assert (chat_dir / "plans.ics").read_bytes() == content


def test_a_calendar_without_a_day_ahead_is_not_written(chat_dir):
    (chat_dir / "chat.txt").write_text(export([(0, "Ruth", "hi"), (1, "Noam", "hey")]), encoding="utf-8")
    done = call(chat_dir, "chat.txt", "--me", "Noam", "--ics", "plans.ics")
    assert "No day ahead: plans.ics was not written." in done.stdout
    assert not (chat_dir / "plans.ics").exists()


def test_words_of_the_chat_are_only_text_on_the_html_page(chat_dir):
    hostile = "I'll send it <b onclick=x>now</b> & then </span>\u202e"
    said = [(0, "Ruth <i>", hostile), (1, "Noam", "https://example.com/<script>")]
    (chat_dir / "chat.txt").write_text(export(said), encoding="utf-8")
    assert call(chat_dir, "chat.txt", "--me", "Noam", "--html", "digest.html").returncode == 0
    page = (chat_dir / "digest.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<i>" not in page
    assert "<b onclick" not in page
    assert html.escape("<b onclick=x>now</b> & then </span>", quote=False) in page
    assert "\u202e" not in page
    assert "default-src 'none'" in page
    assert 'class="quote" dir="auto"' in page


def test_names_and_titles_cannot_add_to_the_calendar_or_the_page(chat_dir):
    inject = "a\r\nATTACH:x; END:VEVENT <img src=x>"
    said = [(0, "Ruth\rATTACH:x\u2028, <b>", "see you on 24.12\rEND:VEVENT"), (1, "Noam", "on friday\x85BEGIN:VEVENT")]
    for name in (f"{inject}.txt", "other.txt"):  # the title is shown where there are several chats
        (chat_dir / name).write_text(export([*said, (2, name[0], "hi")]), encoding="utf-8", newline="")
    done = call(chat_dir, f"{inject}.txt", "other.txt", "--me", "Noam", "--ics", "plans.ics", "--html", "digest.html")
    assert done.returncode == 0, done.stderr
    content = (chat_dir / "plans.ics").read_bytes()
    assert b"\r" not in content.replace(b"\r\n", b"")
    unfolded = content.decode("utf-8").replace("\r\n ", "").split("\r\n")
    allowed = (
        "BEGIN:|END:|VERSION:|PRODID:|SUMMARY:|DTSTART[:;]|DTEND[:;]|DTSTAMP:|UID:|DESCRIPTION:|ACTION:|TRIGGER:|$"
    )
    assert all(re.match(allowed, line) for line in unfolded)
    assert unfolded.count("BEGIN:VEVENT") == len(Calendar.from_ical(content).walk("VEVENT")) == 4
    page = (chat_dir / "digest.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "<b>" not in page


def test_a_calendar_reads_back_every_character(chat_dir):
    text = 'ביום שישי: יין; גבינה, \\n ו"פיצה" 👨\u200d👩\u200d👧\u200d👦 ' * 5 + "\nline two"
    (chat_dir / "chat.txt").write_text(export([(0, "Ruth; Levi, \\n", text), (1, "Noam", "ok")]), encoding="utf-8")
    call(chat_dir, "chat.txt", "--me", "Noam", "--ics", "plans.ics", "--json")
    content = (chat_dir / "plans.ics").read_bytes()
    assert all(len(line) <= 75 for line in content.split(b"\r\n"))
    (event,) = Calendar.from_ical(content).walk("VEVENT")
    assert event["description"] == f"Ruth; Levi, \\n, 2024-12-17 09:30, chat:\n{text}"


def test_words_and_names_cannot_act_on_the_terminal(chat_dir):
    said = [(0, "Ruth\x1b[31m", "I'll send it\x1b[2J \u202enow\nand\nthen"), (1, "Noam", "ok")]
    (chat_dir / "chat.txt").write_text(export(said), encoding="utf-8")
    shown = call(chat_dir, "chat.txt", "--me", "Noam").stdout
    assert "I'll send it" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


# ---- Bad input ----


def test_without_a_name_the_participants_are_listed(chat_dir):
    error = error_of(call(chat_dir, "chat.txt"))
    assert "--me NAME is missing" in error
    assert "Ruth" in error


def test_a_name_that_is_not_in_the_chat_is_answered_with_the_nearest(chat_dir):
    error = error_of(call(chat_dir, "chat.txt", "--me", "Noan"))
    assert 'nobody is called "Noan"; did you mean "Noam"?' in error


def test_naming_everybody_as_oneself_is_refused(chat_dir):
    error = error_of(call(chat_dir, "chat.txt", "--me", "Noam", "--me", "Ruth"))
    assert "chat.txt: --me names everybody who writes here; give your own names alone" in error


def test_a_chat_in_which_only_i_write_has_a_digest(chat_dir):
    (chat_dir / "chat.txt").write_text(export([(0, "Noam", "are you home?"), (1, "Noam", "ok")]), encoding="utf-8")
    assert [question["text"] for question in report_of(chat_dir)["unanswered"]["of_mine"]] == ["are you home?"]


def test_a_period_without_messages_says_so(chat_dir):
    error = error_of(call(chat_dir, "chat.txt", "--me", "Noam", "--since", "2025-01-01", "--html", "digest.html"))
    assert "no message since 2025-01-01; the last one is of 2024-12-19 09:48" in error
    assert not (chat_dir / "digest.html").exists()


@pytest.mark.parametrize("since", ["yesterday", "7", "-7d", "2024-13-01", "999999d"])
def test_another_period_is_wrong_usage(chat_dir, since, capsys):
    with pytest.raises(SystemExit) as leaving:
        chat_digest.main(["chat.txt", "--me", "Noam", f"--since={since}"])
    assert leaving.value.code == 2
    assert "must be a day such as 2024-01-31" in capsys.readouterr().err


def test_the_export_is_never_its_own_output(chat_dir):
    for flag in ("--html", "--ics"):
        assert "would overwrite the export itself" in error_of(
            call(chat_dir, "chat.txt", "--me", "Noam", flag, "chat.txt")
        )
    assert (chat_dir / "chat.txt").read_text(encoding="utf-8") == export()


def test_two_outputs_need_two_files(chat_dir):
    (chat_dir / "folder").mkdir()
    for ics in ("digest", "folder/../digest"):
        error = error_of(call(chat_dir, "chat.txt", "--me", "Noam", "--html", "digest", "--ics", ics))
        assert "digest: is named twice, by --html and by --ics" in error
    assert not (chat_dir / "digest").exists()


def test_a_link_is_replaced_and_what_it_points_to_stays(chat_dir):
    (chat_dir / "notes").write_text("mine", encoding="utf-8")
    (chat_dir / "digest.html").symlink_to("notes")
    assert call(chat_dir, "chat.txt", "--me", "Noam", "--html", "digest.html").returncode == 0
    assert (chat_dir / "notes").read_text(encoding="utf-8") == "mine"
    assert not (chat_dir / "digest.html").is_symlink()


def test_the_next_run_removes_what_a_killed_one_left(chat_dir):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (chat_dir / f".unfinished-{ended.pid}-0123456789ab").write_text("half a page", encoding="utf-8")
    call(chat_dir, "chat.txt", "--me", "Noam", "--html", "digest.html")
    assert sorted(path.name for path in chat_dir.iterdir()) == ["chat.txt", "digest.html"]


def test_killed_anywhere_while_it_writes_each_file_is_the_old_or_the_new_one(chat_dir):
    outputs = {name: chat_dir / name for name in ("digest.html", "plans.ics")}
    arguments = ["chat.txt", "--me", "Noam", "--html", "digest.html", "--ics", "plans.ics"]
    assert call(chat_dir, *arguments).returncode == 0
    new = {name: path.read_bytes() for name, path in outputs.items()}
    num_old = []
    for number in itertools.count(1):
        for path in outputs.values():
            path.write_bytes(b"old")
        if not run_killed(lambda: call(chat_dir, *arguments), number):
            break
        contents = {name: path.read_bytes() for name, path in outputs.items()}
        assert all(content in (b"old", new[name]) for name, content in contents.items()), number
        num_old.append(list(contents.values()).count(b"old"))
    assert set(num_old) == {1, 2}  # the calendar is written first
    assert {name: path.read_bytes() for name, path in outputs.items()} == new
    assert {path.name for path in chat_dir.iterdir()} == {"chat.txt", *outputs}


def test_a_message_of_millions_of_characters_is_quoted_in_part(chat_dir):
    said = [(0, "Ruth", "I'll send it tomorrow " * 100_000), (1, "Noam", "ok")]
    (chat_dir / "chat.txt").write_text(export(said), encoding="utf-8")
    shown = call(chat_dir, "chat.txt", "--me", "Noam").stdout
    assert "What you were promised: 1" in shown
    assert max(map(len, shown.split("\n"))) < 300


def test_an_output_that_cannot_be_written_is_refused_before_reading(chat_dir):
    os.mkfifo(chat_dir / "pipe")
    assert "not a regular file" in error_of(call(chat_dir, "chat.txt", "--me", "Noam", "--html", "pipe"))
    assert "no such folder" in error_of(call(chat_dir, "chat.txt", "--me", "Noam", "--html", "missing/digest.html"))
    (chat_dir / "folder").mkdir()
    assert "not a regular file" in error_of(call(chat_dir, "chat.txt", "--me", "Noam", "--ics", "folder"))


def test_what_is_no_export_is_refused_as_in_stage_1(chat_dir):
    (chat_dir / "notes.txt").write_text("milk, eggs\nand a secret word\n", encoding="utf-8")
    error = error_of(call(chat_dir, "notes.txt", "--me", "Noam"))
    assert "no WhatsApp messages found" in error
    assert "secret" not in error


def test_a_full_disk_leaves_the_old_page(chat_dir):
    import resource

    (chat_dir / "digest.html").write_text("old", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, SCRIPT, "chat.txt", "--me", "Noam", "--html", "digest.html"],
        cwd=chat_dir, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )  # fmt: skip
    assert "digest.html: the file would be larger" in error_of(done)
    assert (chat_dir / "digest.html").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in chat_dir.iterdir()) == ["chat.txt", "digest.html"]


def test_standard_output_carries_the_json_alone(chat_dir):
    done = subprocess.run(
        [sys.executable, SCRIPT, "chat.txt", "--me", "Noam", "--json", "--ics", "plans.ics"],
        cwd=chat_dir, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["me"] == ["Noam"]
    assert "Read chat.txt: 9 messages" in done.stderr
    assert "Wrote plans.ics: 2 days ahead. It is private" in done.stderr
