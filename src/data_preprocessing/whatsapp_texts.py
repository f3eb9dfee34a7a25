"""The texts that WhatsApp itself writes: placeholders for what a person sent, and notices about the chat.

A placeholder (media, a call, a deleted message; data: placeholders.json) has a sender. It is compared with the whole body,
so the same words inside a person's sentence never match. A notice (somebody left) has no sender; the parser asks here where
the form of the line could mislead it.
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

LEFT_TO_RIGHT_MARK = "\u200e"  # iOS begins with it whatever WhatsApp itself wrote, and hardly anything else

ASSISTANTS = frozenset({"Meta AI"})  # WhatsApp's own; no person

PLACEHOLDERS: dict[str, dict[str, list[str]]] = {
    kind: texts
    for kind, texts in json.loads(Path(__file__).with_name("placeholders.json").read_text(encoding="utf-8")).items()
    if kind != "about"
}
WHOLE_BODY_REASONS = ("media", "contact", "deleted", "call", "location", "system_text", "notice")
IGNORED_AROUND = " .。<>"  # final period and brackets differ between versions of WhatsApp
MAX_PLACEHOLDER_CHARS = 400  # the longest, the encryption notice, has about 200
SEPARATOR = r"\s*[.,;·•–—‑-]\s*"
FOLDED_RE = re.compile(r"[\s.,;:!·•–—‑\-<>]+")
INDEX_CHARS = 3  # at the start or the end; a body with other characters there is compared with no text

WHATSAPP_FILE_RE = re.compile(r"(?:[A-Z]{2,6}-\d{8}-WA\d{4}|\d{8}-)[^/\\]{0,250}\Z")
# IMG-20220930-WA0001.jpg (file attached), then a caption on the next lines; old iPhones: 2015-1.jpg <attached>
FILE_THEN_WORD_RE = re.compile(
    r"(?P<file>[^\n]{1,255}\.\w{0,5}) ?[(<](?P<word>[^()<>\n]{2,60})[)>](?:\n(?P<caption>.*))?\Z", re.DOTALL
)
# What WhatsApp Web writes, with the caption on the same line:  trip.jpg (file attached) our dog   <image omitted> our dog
WEB_FILE_RE = re.compile(r"(?P<file>[^\n()]{1,255}) \([^()\n]{2,60}\)(?: (?P<caption>.+))?\Z", re.DOTALL)
WEB_PLACEHOLDER_RE = re.compile(r"(?P<placeholder><[^<>\n]{3,60}>) (?P<caption>.+)\Z", re.DOTALL)
FILE_NAME_RE = re.compile(r".*\.\w{2,5}")
# <attached: 00000042-PHOTO-2022-09-30-18-15-42.jpg>
WORD_THEN_FILE_RE = re.compile(r"<(?P<word>[^<>:\n]{2,30}): ?(?P<file>[^<>\n]{1,255})>")
# report.pdf, report.pdf • 2 pages, or report • 2 pages: what iPhones write before a document
FILE_TITLE_RE = re.compile(r"[^\n]{1,255}(?:\.\w{2,5}(?: • [^\n]{1,40})?| • \d{1,5}\b[^\n]{0,30})\Z")
# report.pdf • 2 pages, and in any language that something was left out or where it lies
DOCUMENT_LINE_RE = re.compile(r"[^\n•]{1,255}\.\w{2,5} • [^\n]{1,400}\Z")
# location: https://maps.google.com/?q=32.08,34.78; Cafe (Main street 5): https://foursquare.com/v/4b05
MAP_LINK_RE = re.compile(
    r"(?P<label>[^\n]{0,200}?):?\s{0,2}https?://(?P<host>maps\.google\.[a-z.]{2,6}/\?q=|foursquare\.com/|maps\.apple\.com/|"
    r"(?:www\.)?google\.[a-z.]{2,6}/maps|goo\.gl/maps|maps\.app\.goo\.gl/)\S*\Z"
)


def _texts_of(*kinds: str) -> frozenset[str]:
    return frozenset(text.casefold() for kind in kinds for texts in PLACEHOLDERS[kind].values() for text in texts)


def _edges(text: str) -> tuple[str, str]:
    core = text.strip(IGNORED_AROUND)
    return core[:INDEX_CHARS], core[-INDEX_CHARS:]


def _fold(text: str) -> str:
    """Return a text in lower case whose punctuation is spaces: versions of WhatsApp differ in it."""
    return FOLDED_RE.sub(" ", text.casefold()).strip()


def _build_tables() -> tuple[dict[str, str], dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Return the texts without `*`, the templates by their first characters, and the others by their last ones."""
    exact: dict[str, str] = {}
    by_start: dict[str, dict[str, str]] = {}
    by_end: dict[str, dict[str, str]] = {}
    for reason in WHOLE_BODY_REASONS:
        for text in sorted(_texts_of(reason)):
            start, end = _edges(text)
            if not WILDCARDS.intersection(text):
                exact[text.strip(IGNORED_AROUND)] = reason
            elif not WILDCARDS.intersection(start):
                by_start.setdefault(start, {})[text] = reason
            else:
                by_end.setdefault(end, {})[text] = reason
    for beginning in ENCRYPTION_STARTS:
        by_start.setdefault(_edges(beginning)[0], {})[f"{beginning}*"] = "notice"
    return exact, by_start, by_end


WILDCARDS = frozenset("*#")
ANY_WORDS = re.escape("*")
ENCRYPTION_STARTS = sorted(_texts_of("encryption"))
EXACT_REASONS, TEMPLATES_BY_START, TEMPLATES_BY_END = _build_tables()
FOLDED_REASONS = {  # of texts in which punctuation varies
    _fold(text): reason
    for text, reason in EXACT_REASONS.items()
    if " " in text and (reason == "call" or "view once" in text)
}
STARTS = {_edges(text)[0] for text in EXACT_REASONS} | TEMPLATES_BY_START.keys()
MEDIA_ENDINGS = tuple(key for key, reason in EXACT_REASONS.items() if reason == "media")
EDITED_MARKS = _texts_of("edited")
EDITED_STEMS = tuple(_texts_of("edited_stem"))
ATTACHED_WORDS = _texts_of("attached", "attached_tag")
ATTACHED_TYPES = _texts_of("attached_type")
FORWARDED_MARKS = tuple(f"[{text}] " for texts in PLACEHOLDERS["forwarded"].values() for text in texts)
LOCATION_LABELS = _texts_of("location_label")
POLL_QUESTIONS = tuple(_texts_of("poll_question"))
POLL_OPTIONS = tuple(_texts_of("poll_option"))


@lru_cache(maxsize=4096)  # messages begin in a few thousand ways; without the cache this takes three times as long
def _is_start(characters: str) -> bool:
    return characters.casefold()[:INDEX_CHARS] in STARTS


@lru_cache(maxsize=4096)
def _is_end(characters: str) -> bool:
    return characters.casefold()[-INDEX_CHARS:] in TEMPLATES_BY_END


@cache
def _template_re(template: str) -> re.Pattern[str]:
    pattern = re.escape(template).replace(ANY_WORDS, ".{0,300}").replace(r"\#", r"\d{1,4}")
    # Missed voice call. Tap ...   Missed voice call - tap ...
    pattern = re.sub(r"(?:\\\.|,)\\ ", lambda _: SEPARATOR, pattern)
    return re.compile(pattern + r"\.?", re.DOTALL)


def placeholder_reason(body: str) -> str | None:
    """Return the drop reason when the whole `body`, without direction marks, is a text of WhatsApp, else None.

    >>> placeholder_reason("<Media omitted>"), placeholder_reason("why does it say <Media omitted>")
    ('media', None)
    """
    if len(body) > MAX_PLACEHOLDER_CHARS:
        return None
    core = body.strip(IGNORED_AROUND)
    if not _is_start(core[:INDEX_CHARS]) and not _is_end(core[-INDEX_CHARS:]):
        return None
    lowered = body.casefold()
    reason = EXACT_REASONS.get(lowered.strip(IGNORED_AROUND)) or FOLDED_REASONS.get(_fold(body))
    if reason is not None:
        return reason
    start, end = _edges(lowered)
    templates = TEMPLATES_BY_START.get(start, {}) | TEMPLATES_BY_END.get(end, {})
    for template, template_reason in templates.items():
        if _template_re(template).fullmatch(lowered):
            return template_reason
    return None


def strip_edited_mark(body: str) -> str:
    """Return `body` without the `<This message was edited>` at its end.

    >>> strip_edited_mark("see you at 8 <This message was edited>")
    'see you at 8'
    """
    start = body.rfind("<")
    return body[:start].rstrip() if start >= 0 and body[start:].casefold() in EDITED_MARKS else body


class Attachment(NamedTuple):
    """What was sent with a message: its drop reason, the words beside it, and the file's name or the placeholder."""

    reason: str
    caption: str  # "" if there is none
    sign: str


def split_attachment(text: str, body: str, is_marked: bool) -> Attachment | None:
    """Return the attachment when the message is one, else None.

    `text` is `body` with its direction marks. `is_marked`: it began with U+200E, so what stands before the attachment is
    the file's title, not a caption.

    >>> line = "IMG-20220930-WA0001.jpg (file attached)\\nour new dog"
    >>> split_attachment(line, line, is_marked=False)
    Attachment(reason='media', caption='our new dog', sign='IMG-20220930-WA0001.jpg')
    """
    first_line, _, following_lines = body.partition("\n")
    if following_lines and (above := placeholder_above(body)):
        return above
    if first_line[-1] in ")>":
        match = FILE_THEN_WORD_RE.match(body)
        if match and (match["word"].casefold() in ATTACHED_WORDS or WHATSAPP_FILE_RE.match(match["file"])):
            return _attachment(match["file"], match["caption"] or "")
    in_brackets = first_line.partition(" (")[2].partition(")")[0]
    web = WEB_FILE_RE.match(body) if in_brackets.casefold() in ATTACHED_WORDS else None
    if web and _is_file_of_web(web["file"]):
        return _attachment(web["file"], web["caption"] or "")
    web = WEB_PLACEHOLDER_RE.match(body) if first_line[0] == "<" else None
    if web and (reason := placeholder_reason(web["placeholder"])) in ("media", "contact"):
        return Attachment(reason, web["caption"].strip(), web["placeholder"])
    if "<" in body:
        for match in WORD_THEN_FILE_RE.finditer(body):
            is_at_edge = match.start() == 0 or match.end() == len(body)
            is_known = match["word"].casefold() in ATTACHED_WORDS or WHATSAPP_FILE_RE.match(match["file"])
            if is_at_edge and (is_known or f"{LEFT_TO_RIGHT_MARK}{match[0]}" in text):
                before, after = body[: match.start()].strip(), body[match.end() :].strip()
                title = before if is_marked or FILE_TITLE_RE.match(before) else ""
                return _attachment(match["file"], before[len(title) :] or after)
    if following_lines:  # a caption under a document
        alone = split_attachment(text.lstrip().partition("\n")[0], first_line, is_marked)
        if alone is not None and not alone.caption:
            return alone._replace(caption=following_lines.strip())
    for marked_part in text.split(LEFT_TO_RIGHT_MARK)[1:]:  # iPhones: a caption, then U+200E and "image omitted"
        part = marked_part.strip()
        reason = placeholder_reason(part)
        if reason in ("media", "contact"):
            return Attachment(reason, "" if is_marked else body.rpartition(part)[0].strip(), part)
    if " • " in body and "\n" not in body and (body.casefold().endswith(MEDIA_ENDINGS) or DOCUMENT_LINE_RE.match(body)):
        return Attachment("media", "", body.partition(" • ")[0])
    return None


def placeholder_above(body: str) -> Attachment | None:
    """Return the attachment when the first of several lines is a placeholder, as where an iPhone's export lost its marks.

    >>> placeholder_above("image omitted\\nour new dog").caption
    'our new dog'
    """
    first_line, _, following_lines = body.partition("\n")
    reason = placeholder_reason(first_line)
    return Attachment(reason, following_lines.strip(), first_line) if reason in ("media", "contact") else None


def _is_file_of_web(name: str) -> bool:
    """Tell whether WhatsApp Web writes `name` before `(file attached)`: a file's name, or what kind it is."""
    return FILE_NAME_RE.fullmatch(name) is not None or name.casefold() in ATTACHED_TYPES


def _attachment(file_name: str, caption: str) -> Attachment:
    reason = "contact" if file_name.casefold().endswith(".vcf") else "media"
    caption = caption.strip()
    # Android repeats the name of a document
    is_title = caption != "" and caption in (file_name, file_name.rpartition(".")[0])
    return Attachment(reason, "" if is_title else caption, file_name)


def is_shared_location(body: str) -> bool:
    """Tell whether the whole body is a place on a map.

    >>> is_shared_location("location: https://maps.google.com/?q=32.08,34.78")
    True
    """
    name, _, last_line = body.rpartition("\n")  # Android: the name of the place and its street stand above the link
    match = MAP_LINK_RE.match(last_line)
    if match is None or name.count("\n") > 1:
        return False
    label = match["label"].casefold().rstrip(" :")
    if name:
        return label in LOCATION_LABELS
    return label in LOCATION_LABELS or match["host"].startswith(("foursquare", "maps.google")) and "?" not in label


# OPTION: Sunday (2 votes), in any language
POLL_OPTION_RE = re.compile(
    r"\W{0,3}(?P<word>[^\W\d_][^\n:：]{1,30}?)\s?[:：] [^\n]*\(\W{0,3}\d{1,4}[^()\n]{0,20}\)\W{0,3}"
)


def is_poll(body: str) -> bool:
    """Tell whether `body` is a poll: a question line, then option lines. A person's "poll: who comes?" is not one.

    >>> is_poll("ANKIETA:\\nwhen?\\nOPCJA: Sunday (1 głos)\\nOPCJA: no (0 głosów)"), is_poll("POLL: who comes?\\nI do")
    (True, False)
    """
    first_line, _, following_lines = body.partition("\n")
    lines = following_lines.split("\n")
    if first_line.casefold().startswith(POLL_QUESTIONS):
        is_of_web = all(line.startswith("    - ") for line in lines)
        return is_of_web or any(line.lstrip().casefold().startswith(POLL_OPTIONS) for line in lines)
    if first_line[-1:] not in (":", "：") or first_line != first_line.upper():
        return False
    words = [match["word"] for match in map(POLL_OPTION_RE.fullmatch, lines) if match]
    return len(words) > 1 and len(set(words)) == 1 and words[0] == words[0].upper()


# ---- Notices ---------------------------------------------------------------------------------------------------------

# A quoted group name may hold `: `.   Dan changed the subject from "Trip: Eilat" to "Trip"
_BEFORE_QUOTE_RE = re.compile(
    r"""
    (?: changed\ the\ (?:subject|group\ name) | created\ (?:the\ |this\ )?group
      | נושא\ הקבוצה | שם\ הקבוצה | (?:יצר|פתח)\S{0,4}\ (?:את\ ה)?קבוצה
      | cambi(?:ó|aste)\ el\ (?:asunto|nombre) | cre(?:ó|aste)\ el\ grupo
      | (?:mudou|alterou)\ o\ (?:assunto|nome) | criou\ o\ grupo
      | den\ (?:Betreff|Gruppennamen) | die\ Gruppe | changé\ le\ (?:sujet|nom) | créé\ le\ groupe
      | cambiato\ (?:l['’]oggetto|il\ nome) | creato\ il\ gruppo | het\ onderwerp | de\ groep
      | (?:тему|название)\ группы | создал\S{0,5}\ группу | konuyu | grup\ adını | grubu | موضوع | اسم\ المجموعة | مجموعة
    )
    [^:]{0,60} ["“”„«»]
    """,
    re.VERBOSE,
)

# Messages and calls are end-to-end encrypted. No one outside of this chat, not even WhatsApp, can read ...
_ENCRYPTION_RE = re.compile(
    rf"{LEFT_TO_RIGHT_MARK}?(?:{'|'.join(re.escape(start).replace(ANY_WORDS, '.{0,120}') for start in ENCRYPTION_STARTS)})",
    re.IGNORECASE,
)

# Dan added Rut   (asked only about texts that begin with U+200E)
_EVENT_RE = re.compile(
    r"""
    \b(?:created|added|removed|left|joined|pinned|blocked|unblocked)\b | \b(?:was|were)\ added
    | changed\ (?:the|this|their|to|your|from)\b | deleted\ (?:the|this)\ group | \bnow\ an?\ admin | no\ longer\ an?\ admin
    | end-to-end\ encrypt | security\ code | disappearing\ messages | message\ timer | business\ account | turned\ o(?:n|ff)
    | requested\ to\ join | reset\ this | community | is\ a\ contact\b | this\ group

    | מקצה[ -]לקצה | קוד\ האבטחה | הודעות\ (?:ש?נעלמות|זמניות) | הטיימר | הצמיד | הצמדת | נעץ | הקבוצה | לקבוצה | מהקבוצה
    | (?:יצר|הוסיף|הוסיפ|צירף|צירפ|הסיר|החליף|החליפ|שינ)\S{0,4}\ (?:את|אותך)
    | (?:^|\ )(?:יצא|עזב|הוסר|הצטרף|הצטרפ|צורף|נוסף)(?:/?[הת]+)?(?:[\ .]|$)
    | ^(?:יצרת|צירפת|הסרת|הצטרפת|נוספת|צורפת|הוספת|יצאת|החלפת|הפכת|שינית|חסמת)\b

    | \b(?:creó|añadió|agregó|eliminó\ a|salió|se\ unió|cambió) | \b(?:criou|adicionou|removeu|saiu|entrou|mudou|alterou)\b
    | \bhat\b.{0,80}\b(?:erstellt|hinzugefügt|entfernt|geändert|verlassen)\b | \bist\b.{0,80}\bbeigetreten
    | \ba\ (?:créé|ajouté|retiré|quitté|changé|modifié|rejoint)\b
    | \bha\ (?:creato|aggiunto|rimosso|abbandonato|cambiato|modificato)\b
    | \bheeft\b.{0,80}\b(?:gemaakt|toegevoegd|verwijderd|verlaten|gewijzigd)\b
    | (?:создал|добавил|покинул|вышел|вышла|изменил|присоединил)
    | (?:oluşturdu|ekledi|çıkardı|ayrıldı|katıldı|değiştirdi)\b | (?:أنشأ|أضاف|أزال|غادر|انضم|غيّر)
    | """
    + "|".join(map(re.escape, sorted(_texts_of("event")))),
    re.VERBOSE,
)

# Notices are short; of a longer text only the start is compared.
MAX_NOTICE_CHARS = 400

# <attached: 00000042-PHOTO.jpg>   Location: https://...   report.pdf • 2 pages <U+200E>document omitted
_STANDS_FOR_MEDIA_RE = re.compile(r"<|.*(?:://|\u200e|•|omitted)")


def is_notice(text: str, attributed_to: str) -> bool:
    """Tell whether `text`, before which iOS wrote U+200E, is a notice; `attributed_to` is a person or the group.

    >>> is_notice("Dan added Rut", "Family"), is_notice("image omitted", "Dan")
    (True, False)
    """
    return _is_notice(text[:MAX_NOTICE_CHARS], attributed_to)


@lru_cache(maxsize=1024)  # iPhones mark every placeholder, and most are the same few texts
def _is_notice(text: str, attributed_to: str) -> bool:
    if _STANDS_FOR_MEDIA_RE.match(text):
        return False
    return text.startswith(f"{attributed_to} ") or bool(_ENCRYPTION_RE.match(text) or _EVENT_RE.search(text))


def is_event(text: str) -> bool:
    """Tell whether `text` holds the words of a notice about the group; a person's sentence may hold them too."""
    return _EVENT_RE.search(text[:MAX_NOTICE_CHARS]) is not None


def is_encryption_notice(text: str) -> bool:
    """Tell whether `text` is the notice that messages are encrypted, with which chats begin."""
    return _ENCRYPTION_RE.match(text) is not None


def is_quoting_notice(sender: str, text: str) -> bool:
    """Tell whether a notice was split into `sender` and `text` at a `: ` inside a quoted group name.

    >>> is_quoting_notice('Dan changed the subject from "A', 'B" to "C"')
    True
    """
    return _BEFORE_QUOTE_RE.search(sender) is not None and any(quote in text for quote in '"“”„«»')
