"""--keep-media-marks: what was sent instead of words becomes one word, in every form of an export that is recognised."""

import json
from pathlib import Path

import message_filters
import pytest
from message_filters import filter_text
from test_load_whatsapp import android, convert, iphone, words

MARK = "\u200e"  # iOS begins with it what WhatsApp itself wrote
PLACEHOLDERS = json.loads(Path(message_filters.__file__).with_name("placeholders.json").read_text(encoding="utf-8"))
KINDS = ("voice", "photo", "video", "sticker", "gif", "document")
# What names no kind outside of <...>, and what names one inside.
UNNAMED = {"media omitted", "album omitted", "view once message omitted"}
NAMED_IN_BRACKETS = {"<Video note omitted>": "video", "<View once voice message omitted>": "voice"}
# Languages whose table has no word for a kind; those with two texts or fewer have none for any.
MISSING = {
    "fi": {"photo"}, "ro": {"voice"}, "ur": {"gif"}, "bn": {"gif"}, "mr": {"gif"},
    "th": {"voice", "photo", "sticker", "document"}, "gu": {"voice", "video", "sticker", "gif", "document"},
}  # fmt: skip


def mark_of(text):
    return filter_text(text, "Rut", keeps_media=True)[0]


def kinds_of(language):
    texts = [text for text in PLACEHOLDERS["media"][language] if "*" not in text and text not in NAMED_IN_BRACKETS]
    return {text: mark_of(text).strip("[]") for text in texts}


@pytest.mark.parametrize("language", PLACEHOLDERS["media"])
def test_every_placeholder_of_every_language_has_its_mark(language):
    kinds = kinds_of(language)
    named = {text: kind for text, kind in kinds.items() if text[0] != "<" and text not in UNNAMED}
    assert {text for text, kind in named.items() if kind == "media"} == set()
    assert {text for text, kind in kinds.items() if text not in named and kind != "media"} == set()
    if named:
        assert set(named.values()) == set(KINDS) - MISSING.get(language, set())


@pytest.mark.parametrize("reason", ["contact", "location"])
def test_contacts_and_places_have_marks_in_every_language(reason):
    texts = [text.replace("#", "2") for found in PLACEHOLDERS[reason].values() for text in found]
    assert {mark_of(form) for text in texts for form in (text, MARK + text)} == {f"[{reason}]"}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<Media omitted>", "[media]"),
        ("<המדיה לא נכללה>", "[media]"),
        ("<Some new note omitted>", "[media]"),
        ("<Video note omitted>", "[video]"),
        ("<View once voice message omitted>", "[voice]"),
        (f"{MARK}audio omitted", "[voice]"),
        (f"{MARK}קטע קול הושמט", "[voice]"),
        ("why audio omitted?", "why audio omitted?"),
        (f"{MARK}لم يتم إدراج صورة GIF", "[gif]"),
        (f"{MARK}Videonachricht weggelassen", "[video]"),
        (f"{MARK}аудиофайл отсутствует", "[voice]"),
        (f"{MARK}文件已略去", "[document]"),
        ("<省略多媒体文件>", "[media]"),
        ("ήχος παραλείφθηκε", "[voice]"),
        ("PTT-20220930-WA0003.opus (file attached)", "[voice]"),
        ("PTT-20220930-WA0003.opus (in a language we do not know)", "[voice]"),
        (f"{MARK}AUD-20220930-WA0004.m4a (קובץ מצורף)", "[voice]"),
        ("IMG-20220930-WA0001.jpg (file attached)", "[photo]"),
        ("IMG-20220930-WA0001.webp (file attached)", "[photo]"),
        ("VID-20220930-WA0001.mp4 (archivo adjunto)", "[video]"),
        ("STK-20220930-WA0001.webp (file attached)", "[sticker]"),
        ("20220930-sea.webp (file attached)", "[sticker]"),
        (f"{MARK}<attached: 00000042-PHOTO-2022-09-30-18-15-42.jpg>", "[photo]"),
        (f"{MARK}<attached: 00000043-AUDIO-2022-09-30-18-15-42.opus>", "[voice]"),
        (f"{MARK}<Anhang: 00000044-STICKER-2022-09-30-18-15-42.webp>", "[sticker]"),
        (f"{MARK}<מצורף: 00000045-GIF-2022-09-30-18-15-42.mp4>", "[gif]"),
        (f"{MARK}<attached: 00000046-VIDEO-2022-09-30-18-15-42.mp4>", "[video]"),
        ("2015-03-01-PHOTO-00000012.jpg <attached>", "[photo]"),
        ("report.pdf (file attached)\nreport", "[document]"),
        ("VIDEO-2 script.pdf (file attached)", "[document]"),
        ("photo album.pdf • 2 pages in a language we do not know", "[document]"),
        (f"{MARK}report.pdf • {MARK}2 pages {MARK}document omitted", "[document]"),
        (f"{MARK}report.pdf • {MARK}2 pages {MARK}<attached: 00000002-report.pdf>", "[document]"),
        ("Dan Levi.vcf (file attached)", "[contact]"),
        (f"{MARK}<attached: 00000004-Dan.vcf>", "[contact]"),
        ("location: https://maps.google.com/?q=32.0853,34.7818", "[location]"),
        ("Cafe Nero (Main street 5): https://foursquare.com/v/4b05", "[location]"),
        # A caption stands on the lines after the mark.
        ("IMG-20220930-WA0001.jpg (file attached)\nour new dog\n\nשמו רקס", "[photo]\nour new dog\n\nשמו רקס"),
        ("<Media omitted>\nour new dog", "[media]\nour new dog"),
        (f"our new dog {MARK}<attached: 00000042-PHOTO-2022-09-30.jpg>", "[photo]\nour new dog"),
        (f"our new dog {MARK}image omitted", "[photo]\nour new dog"),
        (f"{MARK}report.pdf • {MARK}2 pages {MARK}document omitted\nread it", "[document]\nread it"),
        ("<Media omitted>\nsee https://example.com/a", "[media]\nsee"),
        ("<Media omitted>\nhttps://example.com/a", "[media]"),
        ("<Media omitted>\nour dog <This message was edited>", "[media]\nour dog"),
        # Whoever types a mark did not do what it stands for.
        ("[voice]", "(voice)"),
        ("[media]\nis what I typed", "(media)\nis what I typed"),
        ("<Media omitted>\n[photo]", "[media]\n(photo)"),
        ("what is [voice]?", "what is [voice]?"),
        ("[PHONE]", "[PHONE]"),
    ],
)  # fmt: skip
def test_each_form_becomes_one_word_and_keeps_its_caption(text, kept):
    assert mark_of(text) == kept


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("You deleted this message.", "deleted"),
        (f"{MARK}Voice call. 10 sec", "call"),
        (f"{MARK}סקר:\nפיצה או סושי?\n{MARK}אפשרות: פיצה", "poll"),
        (f"{MARK}A text that no table knows", "system_text"),
        ("https://example.com/a", "link"),
        ("", "empty"),
    ],
)
def test_all_else_is_left_out_as_before(text, reason):
    assert filter_text(text, "Rut", keeps_media=True) == (None, reason)


CHAT = [
    (0, "Dan", "where are you?"),
    (1, "Rut Levi", "<Media omitted>"),
    (2, "Rut Levi", "listen"),
    (3, "Dan", "<Media omitted>"),
    (4, "Rut Levi", "[photo]"),
    (200, "Dan", "anyone?"),
    (201, "Rut Levi", "<Media omitted>"),
    (202, "Dan", "<Media omitted>"),
]


def test_marks_are_messages_of_their_turns_and_of_the_ledger(tmp_path):
    (tmp_path / "chat.txt").write_text(android(CHAT), encoding="utf-8")
    conversations, report, dropped, _ = convert(tmp_path, "chat.txt", "--keep-media-marks")
    assert [words(talk) for talk in conversations] == [
        [
            ("user", "where are you?"),
            ("assistant", "[media]\nlisten"),
            ("user", "[media]"),
            ("assistant", "(photo)"),
        ],
        [("user", "anyone?"), ("assistant", "[media]")],
    ]
    assert report["messages"] == {"parsed": 8, "kept": 7, "dropped": {"after_last_reply": 1}}
    assert [row["text"] for row in dropped] == ["[media]"]
    conversations, report, _, _ = convert(tmp_path, "chat.txt")
    assert [words(talk) for talk in conversations] == [[("user", "where are you?"), ("assistant", "listen\n[photo]")]]
    assert report["messages"]["dropped"]["media"] == 4


def test_an_export_with_the_files_and_one_without_count_a_medium_once(tmp_path):
    lines = [(number, ("Dan", "Rut Levi")[number % 2], f"message number {number} of ours") for number in range(14)]
    without = [*lines, (14, "Dan", "and?"), (15, "Rut Levi", "<Media omitted>")]
    with_files = [*without[:-1], (15, "Rut Levi", "IMG-20230320-WA0001.jpg (file attached)"), (16, "Dan", "nice")]
    (tmp_path / "without.txt").write_text(android(without), encoding="utf-8")
    (tmp_path / "with.txt").write_text(android(with_files), encoding="utf-8")
    (talk,), report, _, _ = convert(tmp_path, "without.txt", "with.txt", "--keep-media-marks")
    assert [turn for turn in words(talk) if "[" in turn[1]] in ([("assistant", "[media]")], [("assistant", "[photo]")])
    assert report["messages"]["dropped"]["duplicate"] == 16


def test_an_iphones_photo_is_named(tmp_path):
    (tmp_path / "_chat.txt").write_text(iphone(CHAT), encoding="utf-8")
    (first, second), *_ = convert(tmp_path, "_chat.txt", "--keep-media-marks")
    assert words(second) == [("user", "anyone?"), ("assistant", "[photo]")]
    assert words(first)[1] == ("assistant", "[photo]\nlisten")
