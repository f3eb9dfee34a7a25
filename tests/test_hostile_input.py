"""Exports, zips and words that somebody made to do harm: refused in one line, or taken as the plain text they are, in time."""

import json
import random
import struct
import zipfile
import zlib

import load_whatsapp
import pytest
from bubbles import render_bubble, render_note
from conversation_log import read_conversation
from export_survey import NUMBER_LIKE_RE, line_shape
from linear_time import assert_linear
from message_filters import filter_text, is_unknown_placeholder
from message_header import read_header
from participants import find_nearest_name, find_senders, readable_name
from program_code import is_code
from redaction import Redactor, guess_phone_region
from reply_stream import ROLE_MARKER_PREFIX_RE, ROLE_MARKER_RE
from saved_model_checks import check_adapter
from terminal import read_line_as_command
from test_export_source import write_zip
from whatsapp_export import parse_export, split_sender
from whatsapp_texts import is_encryption_notice, is_notice, is_quoting_notice
from writing_style.writing_habits import ELONGATED_RE, LAUGHTER_RE, WORD_RE

from common.conversation_data import CHAT_EXPORT_RE, TrainingDataError, read_training_data
from common.script import ScriptError, printable
from common.text_safety import remove_unsafe_characters

LINE = "30/09/2022, 18:15 - Rut: "
CHAT = f"{LINE}hello\n30/09/2022, 18:16 - Dan: hi\n30/09/2022, 18:17 - Rut: bye\n"

# ---- Words: every expression linear ----

NUM_CHARS = 65_536  # the longest message that WhatsApp sends

FUNCTIONS = {
    "filter_text": lambda text: filter_text(text, "Rut", keeps_media=True),
    "redact": Redactor("IL", ["Rut Levi", "a b"]).redact,
    "guess_phone_region": lambda text: guess_phone_region([text]),
    "number samples": NUMBER_LIKE_RE.search,
    "is_code": is_code,
    "is_unknown_placeholder": is_unknown_placeholder,
    "read_header": read_header,
    "split_sender": lambda text: split_sender(text, has_marks=True),
    "is_notice": lambda text: is_notice(text, "Dan"),
    "is_quoting_notice": lambda text: is_quoting_notice(text, text),
    "is_encryption_notice": is_encryption_notice,
    "readable_name": readable_name,
    "find_senders": lambda text: find_senders(text, ["Rut"]),
    "find_nearest_name": lambda text: find_nearest_name(text[:1000], ["Rut", text[:1000]]),
    "line_shape": line_shape,
    "printable": printable,
    "training data of another kind": lambda text: CHAT_EXPORT_RE.match(text),
    "remove_unsafe_characters": remove_unsafe_characters,
    "read_line_as_command": read_line_as_command,
    "role markers": lambda text: (ROLE_MARKER_RE.search(text), ROLE_MARKER_PREFIX_RE.search(text)),
    "render_note": render_note,
    "style": lambda text: [sum(1 for _ in each.finditer(text)) for each in (LAUGHTER_RE, ELONGATED_RE, WORD_RE)],
}  # fmt: skip
# Repeated, each of them makes some expression start at every place and fail at the end.
UNITS = [
    "1", "1 ", "1-", "1.", "1,", "1/", "1:", "(1", "111,", "1,111,", "+1", "\u20aa1 ", "12 a ", "0 5", "050-", "\u0661 ",
    "a", "A", "\u05d0", "a ", "a.", "a_", "a1", "A1 ", "aB", "a@", "a.a@", "@", "::1", "1a:", "eyJ-", "sk-", "GB29",
    "code ", "code 123 ", "password ", "password\u05d0", "pass:", "\u05e8\u05d7\u05d5\u05d1 \u05d0 ",
    "<", "<a", "<a: ", "(", "[", "{", "{a:", "a(", "a.a(", "a[", "()", "( ", "\"", "'", "`", "=", "a = ", "# ", "--a ",
    "://", "http://", "http://a ", "www.", "a.com/", "bit.ly/", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----",
    "\u200e", "\u200ea", ": ", ": \u200e", " ", "\t", "\n", "a\n", "\r", "\u2028", "\xa0", "\x00", "\x1b[", "\x1b]a", "\x9b",
    "hat ", "ist hat ", "heeft ", "group \"", "changed the subject ", "Messages and calls ", "poll:", "OPTION: ",
    "1/1/1/", "1/1/22, 1:1", "[1/1/22, ", "Sep 30, ", "\u05d7", "ha", "lo", "x", "<person", "\U0001f468\u200d", "e\u0301",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_text_of_a_messages_length_takes_long(name):
    before, after = "12345 a@b ", "!"  # else the cheap tests that come first skip most of it
    for unit in UNITS:
        assert_linear(FUNCTIONS[name], NUM_CHARS, lambda length, unit=unit: (before + unit * length)[:length] + after)


@pytest.mark.parametrize(
    "unit", ["a", "a ", "\u05d0", "\U0001f468\u200d", "\U0001f1ee\U0001f1f1", "e\u0301", "a-", " ", "\t", "a\n"]
)
def test_a_bubble_of_any_words_is_drawn_in_time(unit):
    assert_linear(lambda text: render_bubble("assistant", text), 16_000, lambda length: f"x{unit * length}x")


def test_a_message_of_three_million_characters_is_kept(tmp_path, monkeypatch):
    (tmp_path / "chat.txt").write_text(CHAT + f"{LINE}{'word ' * 600_000}\n", encoding="utf-8")
    assert len(made_of(tmp_path, monkeypatch, "chat.txt")[-1]["content"]) > 2_900_000


IPHONE = "[1/2/24, 10:00:00] "
MANY_NAMES = {  # lines, for a number
    "senders": lambda n: f"{IPHONE}Dan {n}: hi: you\n",
    "members in notices": lambda n: f"{IPHONE}Dan {n}: \u200eDan {n} added Rut\n",
    "groups in quotes": lambda n: f'{IPHONE}Dan {n}: \u200eDan {n} changed the subject to "Dan {n + 1}"\n',
    "second parts of a name": lambda n: f"{LINE}to {n}: hi\n" * 3,
    "second lines of a name": lambda n: f"{LINE[:-2]}\nLevi {n}: hi\n" * 3,
}  # fmt: skip


@pytest.mark.parametrize("line", MANY_NAMES.values(), ids=MANY_NAMES)
def test_an_export_with_thousands_of_names_takes_linear_time(tmp_path, line):
    def write_export(num_names):
        path = tmp_path / f"{num_names}.txt"
        path.write_text(CHAT * ("[" not in line(0)) + "".join(map(line, range(num_names))), encoding="utf-8")
        return path

    assert_linear(lambda path: list(parse_export(path)), 2_400, write_export)


# ---- Zips ----


def made_of(folder, monkeypatch, export):
    """Run stage 1; the turns of all conversations, once nothing but its three outputs was written."""
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    flags = ["--imitate", "Rut", "--day-first", "--path-to-data", "out/formatted_data.jsonl"]
    try:
        load_whatsapp.main([export, *flags])
    finally:
        made = {path for path in folder.rglob("*") if path not in before}
        assert {path.relative_to(folder).parts[0] for path in made} <= {"out"}
    lines = (folder / "out/formatted_data.jsonl").read_text(encoding="utf-8").splitlines()
    return [turn for line in lines for turn in json.loads(line)["messages"]]


@pytest.mark.parametrize(
    "name", ["/etc/x.txt", "..\\..\\x.txt", "C:\\x.txt", "\x1b[2J.txt", "a" * 300 + ".txt", "-rf.txt"]
)
def test_no_file_is_made_of_an_entrys_name(tmp_path, monkeypatch, name):
    write_zip(tmp_path / "a.zip", {name: CHAT})
    assert len(made_of(tmp_path, monkeypatch, "a.zip")) == 3


def test_a_link_in_a_zip_is_the_text_it_holds(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("_chat.txt")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    write_zip(tmp_path / "a.zip", {link: "/etc/passwd"})
    with pytest.raises(ScriptError, match="no WhatsApp messages found"):
        made_of(tmp_path, monkeypatch, "a.zip")


def test_entries_that_share_their_bytes_are_read_one_at_a_time(tmp_path, monkeypatch):
    """The bomb of overlapping entries: a directory that names the same bytes a thousand times."""
    content = write_zip(tmp_path / "one.zip", {"_chat.txt": CHAT}).read_bytes()
    place = content.rindex(b"PK\x01\x02")
    entry = content[place : content.rindex(b"PK\x05\x06")]
    directory = entry * 1000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1000, 1000, len(directory), place, 0)
    (tmp_path / "a.zip").write_bytes(content[:place] + directory + end)
    try:
        assert len(made_of(tmp_path, monkeypatch, "a.zip")) == 3  # newer Pythons refuse the overlap
    except ScriptError as error:
        assert "damaged zip" in str(error)


def test_a_zip_of_fifteen_thousand_entries_is_read(tmp_path, monkeypatch):
    write_zip(tmp_path / "a.zip", {f"IMG-{number}.jpg": b"" for number in range(15_000)} | {"_chat.txt": CHAT})
    assert len(made_of(tmp_path, monkeypatch, "a.zip")) == 3


def test_a_wrong_checksum_is_damage(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"_chat.txt": CHAT}, zipfile.ZIP_STORED)
    right, wrong = struct.pack("<L", zlib.crc32(CHAT.encode())), b"\0\0\0\1"
    path.write_bytes(path.read_bytes().replace(right, wrong))
    with pytest.raises(ScriptError, match="is a damaged zip; export the chat again"):
        made_of(tmp_path, monkeypatch, "a.zip")


# ---- JSONL, adapters, logs ----


@pytest.mark.parametrize(
    ("before", "unit", "after"),
    [
        ("", "[", ""),
        ("", '{"messages": ', ""),
        ('{"messages": [{"role": "user", "content": "', "\\u0000", ""),
        ("{", '"a": 1, ', '"a": 1}'),
        ('{"messages": [], "n": ', "1", "}"),
        ('{"messages": [], "n": 1e', "9", "}"),
    ],
    ids=["brackets", "objects", "escapes", "same key", "long number", "long exponent"],
)
def test_a_line_of_megabytes_made_to_choke_on_is_refused_in_time(tmp_path, before, unit, after):
    def make(length):
        line = before + unit * (length // len(unit)) + after
        (tmp_path / "data.jsonl").write_text('{"messages": []}\n' + line + "\n", encoding="utf-8")
        return line

    def refuse(_line):
        with pytest.raises(TrainingDataError, match="line 2|no reply of the person"):
            read_training_data(tmp_path / "data.jsonl")

    assert_linear(refuse, 3_000_000, make)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'{"r": ' + b"9" * 1_000_000 + b"}",
        b"\xff\xfe",
        b"NaN",
        b'{"peft_type": "LORA", "r": true}',
    ],
    ids=["brackets", "objects", "long number", "no text", "NaN", "rank of a wrong kind"],
)
def test_an_adapter_config_made_to_choke_on_is_refused(tmp_path, content):
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(ScriptError, match="adapter_config.json|adapter_model"):
        check_adapter(tmp_path)


def test_a_jsonl_log_of_bytes_that_are_no_text_still_opens(tmp_path):
    path, noise = tmp_path / "conversation.jsonl", random.Random(0).randbytes(200_000)
    path.write_bytes(noise + b'\n{"role": "user", "text": "hi"}\n' + b"\xff" * 1000)
    assert read_conversation(path).messages == [{"role": "user", "content": "hi"}]
