"""Files as users have them: every encoding and every zip gives the right lines or one clear refusal, and never hangs."""

from __future__ import annotations

import os
import socket
import struct
import zipfile
from pathlib import Path

import pytest
from export_source import ExportError, ExportSource, find_exports
from whatsapp_export import parse_export

LINE = "30/09/2022, 18:15 - רות: "
CHAT = f"{LINE}היי 👨‍👩‍👧\n{LINE}שלום\n"


def texts(path: Path, **options) -> list[str]:
    return [message.text for message in parse_export(path, **options)]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_zip(path: Path, entries: dict[str, str | bytes], method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        CHAT.encode(),
        b"\xef\xbb\xbf" + CHAT.encode(),
        CHAT.encode("utf-16"),
        CHAT.encode("utf-16-le"),
        CHAT.encode("utf-16-be"),
        CHAT.encode("utf-32"),
        CHAT.replace("\n", "\r\n").encode(),
        CHAT.replace("\n", "\r").encode(),
        CHAT.removesuffix("\n").encode(),
        CHAT.replace("\n", "\r\n").encode("utf-16"),
    ],
    ids=["utf-8", "mark", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "crlf", "cr", "no last newline", "utf-16 crlf"],
)
def test_encodings_and_line_ends_give_the_same_messages(tmp_path, content):
    assert texts(write(tmp_path / "chat.txt", content)) == ["היי 👨‍👩‍👧", "שלום"]


@pytest.mark.parametrize("block", range(-3, 4))
def test_characters_and_line_ends_on_the_border_of_two_blocks(tmp_path, block):
    filling = "x" * ((1 << 16) - len(f"{LINE}\r\n".encode()) + block)
    content = f"{LINE}{filling}\r\n{LINE}שלום\r\n".encode()
    assert texts(write(tmp_path / "chat.txt", content)) == [filling, "שלום"]


def test_an_8_bit_code_page_must_be_named(tmp_path):
    path = write(tmp_path / "chat.txt", CHAT.replace(" 👨‍👩‍👧", "").encode("cp1255"))
    with pytest.raises(ExportError, match="--encoding cp1255"):
        parse_export(path)
    assert texts(path, encoding="cp1255") == ["היי", "שלום"]


@pytest.mark.parametrize("encoding", ["no-such", "hex", "rot13", "utf-8\0"])
def test_an_unknown_encoding_is_refused(tmp_path, encoding):
    path = write(tmp_path / "chat.txt", CHAT.encode())
    with pytest.raises(ExportError, match="no encoding called"):
        parse_export(path, encoding=encoding)


@pytest.mark.parametrize(
    ("content", "last", "num_bad"),
    [
        (CHAT.encode()[:-2], "שלו", 1),  # cut inside the last letter
        (CHAT.encode() + LINE.encode() + b"a\xff\xfeb\n", "ab", 2),
        (CHAT.encode() + LINE.encode() + b"a\xed\xa0\x80b\n", "ab", 3),  # half of a surrogate pair
    ],
)
def test_bad_bytes_are_left_out_and_counted(tmp_path, content, last, num_bad):
    export = parse_export(write(tmp_path / "chat.txt", content))
    assert list(export)[-1].text == last
    assert export.num_bad_bytes == num_bad
    line_number = content.rstrip(b"\n").count(b"\n") + 1
    assert f"line {line_number}" in export.warnings[0]


def test_utf_16_cut_in_the_middle_of_a_character(tmp_path):
    export = parse_export(write(tmp_path / "chat.txt", CHAT.encode("utf-16")[:-1]))
    assert len(list(export)) == 2
    assert export.num_bad_bytes == 1


def test_zero_bytes_are_text(tmp_path):
    assert texts(write(tmp_path / "chat.txt", f"{LINE}a\0b\n".encode())) == ["a\0b"]


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\0" * 1000])
def test_empty_files_are_said_to_be_empty(tmp_path, content):
    with pytest.raises(ExportError, match="is empty"):
        parse_export(write(tmp_path / "chat.txt", content))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "PNG"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"Rar!\x1a\x07", "RAR"),
        (b"%PDF-1.7", "PDF"),
    ],
)
@pytest.mark.parametrize("name", ["chat.txt", "chat.zip"])
def test_other_kinds_of_file_are_named(tmp_path, content, kind, name):
    with pytest.raises(ExportError, match=kind):
        parse_export(write(tmp_path / name, content))


def test_an_endless_line_is_refused_without_reading_it_all(tmp_path):
    path = write(tmp_path / "chat.txt", CHAT.encode())
    os.truncate(path, 5 << 30)  # a sparse file: 5 GiB of zero bytes on the last line
    with pytest.raises(ExportError, match="line 3 is longer than"):
        texts(path)


def test_a_folder_a_pipe_a_socket_and_a_device_are_refused_unread(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the address of a socket must be short
        server.bind("socket.txt")
        for path in (tmp_path / "pipe.txt", tmp_path / "socket.txt", Path("/dev/zero")):
            with pytest.raises(ExportError, match="not a regular file"):
                parse_export(path)
    with pytest.raises(ExportError, match="is a folder"):
        parse_export(tmp_path)


def test_missing_files_and_bad_links(tmp_path):
    (tmp_path / "dangling.txt").symlink_to("nowhere.txt")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    for name in ("missing.txt", "dangling.txt", "loop.txt", "a" * 300, "nul\0.txt"):
        with pytest.raises(ExportError, match="cannot be read"):
            parse_export(tmp_path / name)


def test_warns_when_the_file_changes_while_it_is_read(tmp_path):
    path = write(tmp_path / "chat.txt", CHAT.encode())
    export = parse_export(path)
    write(path, (CHAT * 2).encode())
    list(export)
    assert any("changed while it was read" in warning for warning in export.warnings)


# ---- zip ----


@pytest.mark.parametrize(
    "name", ["_chat.txt", "WhatsApp Chat with Rut.txt", "צ'אט WhatsApp עם רות.TXT", "a/b/_chat.txt", "../../x.txt"]
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_export_in_a_zip(tmp_path, name, method):
    path = write_zip(
        tmp_path / "chat.ZIP",
        {"notes.txt": "milk\neggs", "__MACOSX/._chat.txt": "\0\5\x16", "IMG-1.jpg": "x", name: CHAT, "d/": ""},
        method,
    )
    before = sorted(tmp_path.rglob("*"))
    assert len(texts(path)) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_content_decides_not_the_name(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"_chat.txt": CHAT})
    assert len(texts(archive.rename(tmp_path / "zip.txt"))) == 2
    assert len(texts(write(tmp_path / "text.zip", CHAT.encode()))) == 2
    assert len(texts(write(tmp_path / "junk before.zip", b"junk" * 9 + (tmp_path / "zip.txt").read_bytes()))) == 2


def test_an_export_that_was_sent_in_the_chat_is_not_the_chat(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"old.txt": f"{LINE}old\n", "WhatsApp Chat with Rut.txt": CHAT})
    assert len(texts(path)) == 2


def test_several_chats_in_one_zip_must_be_chosen_from(tmp_path):
    path = write_zip(
        tmp_path / "a.zip", {f"WhatsApp Chat with {name}.txt": f"{LINE}{name}\n" for name in ("Dan", "Noa\x1b")}
    )
    with pytest.raises(ExportError, match="holds 2 chats; choose one with --chat NAME") as refusal:
        parse_export(path)
    assert "Dan" in str(refusal.value)
    assert "\x1b" not in str(refusal.value)
    assert texts(path, chat="dan") == ["Dan"]
    assert texts(path, chat="WhatsApp Chat with Dan.txt") == ["Dan"]
    with pytest.raises(ExportError, match="holds no chat"):
        parse_export(path, chat="Moshe")


def test_a_zip_without_an_export_lists_what_it_holds(tmp_path):
    with pytest.raises(ExportError, match="no .txt") as refusal:
        parse_export(write_zip(tmp_path / "a.zip", {f"{number}.jpg": "" for number in range(9)}))
    assert len(str(refusal.value).splitlines()) == 7
    with pytest.raises(ExportError, match="no export"):
        parse_export(write_zip(tmp_path / "b.zip", {"a.txt": "milk", "b.txt": "eggs"}))
    with pytest.raises(ExportError, match="no WhatsApp messages"):
        parse_export(write_zip(tmp_path / "c.zip", {"_chat.txt": "milk"}))


def test_bombs_are_refused_by_what_was_read(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"_chat.txt": LINE + "0" * 9_000_000})
    with pytest.raises(ExportError, match="bomb"):
        texts(path)


def test_a_header_that_lies_about_the_size(tmp_path):
    content = bytearray(write_zip(tmp_path / "a.zip", {"_chat.txt": LINE + "0" * 9_000_000}).read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 10)  # the directory claims 10 bytes
    with pytest.raises(ExportError):
        texts(write(tmp_path / "b.zip", bytes(content)))


def test_encrypted_zips(tmp_path):
    content = bytearray(write_zip(tmp_path / "a.zip", {"_chat.txt": CHAT}).read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ExportError, match="password"):
        parse_export(write(tmp_path / "b.zip", bytes(content)))


def test_damage_anywhere_in_a_zip_is_an_error_of_ours(tmp_path):
    whole = write_zip(tmp_path / "a.zip", {"_chat.txt": CHAT * 50, "notes.txt": "milk"}).read_bytes()
    path = tmp_path / "b.zip"
    for place in range(0, len(whole), 3):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]):
            path.write_bytes(damaged)
            try:
                num_messages = len(texts(path))
            except ExportError:
                continue
            assert num_messages == 100  # damage that matters to no reader, such as in a date


def test_unreadable_compression(tmp_path):
    content = bytearray(write_zip(tmp_path / "a.zip", {"_chat.txt": CHAT}).read_bytes())
    content[8] = content[content.rindex(b"PK\x01\x02") + 10] = 99
    with pytest.raises(ExportError, match="packed as no phone packs it"):
        parse_export(write(tmp_path / "b.zip", bytes(content)))


# ---- folder ----


def test_the_exports_below_a_folder(tmp_path):
    for name in ("b/_chat.txt", "a.txt", "WhatsApp.TXT", ".hidden/c.txt", "__MACOSX/d.txt"):
        write(tmp_path / name, CHAT.encode())
    write(tmp_path / "notes.txt", b"milk")
    write(tmp_path / "photo.jpg", b"\xff\xd8\xff")
    os.mkfifo(tmp_path / "pipe.txt")
    write_zip(tmp_path / "c.zip", {"_chat.txt": CHAT})
    write_zip(tmp_path / "photos.zip", {"a.jpg": ""})
    found = [str(path.relative_to(tmp_path)) for path in find_exports(tmp_path)]
    assert found == ["WhatsApp.TXT", "a.txt", "b/_chat.txt", "c.zip"]
    assert find_exports(tmp_path / "a.txt") == [tmp_path / "a.txt"]


def test_a_folder_without_exports_is_refused(tmp_path):
    write(tmp_path / "notes.txt", b"milk")
    with pytest.raises(ExportError, match="no WhatsApp export"):
        find_exports(tmp_path)


# ---- changes while it is read ----


@pytest.mark.parametrize("kind", ["txt", "zip"])
def test_an_edit_between_two_readings_is_found_although_the_time_of_change_was_restored(tmp_path, kind):
    path = tmp_path / f"chat.{kind}"

    def put(words):
        text = f"{LINE}{words}\n" * 9
        if kind == "zip":
            write_zip(path, {"_chat.txt": text}, zipfile.ZIP_STORED)
        else:
            path.write_bytes(text.encode())

    put("שלום")
    state = path.stat()
    source = ExportSource(path)
    for _reading in range(2):
        list(source.lines())
        assert not source.has_changed()
    content = path.read_bytes().replace("שלום".encode(), "שלוש".encode(), 1)
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    if kind == "txt":
        list(source.lines())
        assert source.has_changed()
    else:  # the sum in the zip no longer fits
        with pytest.raises(ExportError):
            list(source.lines())
