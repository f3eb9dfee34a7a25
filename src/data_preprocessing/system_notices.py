"""Tells the notices that WhatsApp writes itself from messages, where the form of the line alone misleads.

A notice is what happened to the chat: a group was created, somebody left. Placeholders for media, calls, locations, polls or
deleted messages stand for something a person sent; they keep their sender and are the cleaner's.
"""

from __future__ import annotations

import functools
import re

# The name of a group, in quotes, may hold `: `.   Dan changed the subject from "Trip: Eilat" to "Trip"
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
    r"""
    \u200e? (?:
      Messages\ (?:and\ calls|you\ send\ to\ this\ (?:group|chat)).{0,40}end-to-end\ encrypt
      | (?:ה?הודעות\ וה?שיחות)\ מוצפנות\ מקצה[ -]לקצה
      | Los\ mensajes.{0,60}cifrados\ de\ extremo\ a\ extremo | As\ mensagens.{0,60}(?:ponta\ a\ ponta)
      | Nachrichten.{0,60}Ende-zu-Ende-verschlüsselt | Les\ messages.{0,60}chiffrés\ de\ bout\ en\ bout
      | I\ messaggi.{0,60}crittografia\ end-to-end | Berichten.{0,60}end-to-end\ versleuteld
      | Сообщения.{0,60}сквозным\ шифрованием | Mesajlar.{0,60}uçtan\ uca\ şifreli
      | الرسائل.{0,60}مشفرة\ تمامًا
    )
    """,
    re.VERBOSE,
)

# Dan added Rut   (only ever asked about texts that begin with U+200E)
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
    """,
    re.VERBOSE,
)

# A notice is short; what is longer is judged by its start.
MAX_NOTICE_CHARS = 400

# <attached: 00000042-PHOTO.jpg>   Location: https://...   report.pdf • 2 pages <U+200E>document omitted
_PLACEHOLDER_RE = re.compile(r"<|.*(?:://|\u200e|•|omitted)")


def is_notice(text: str, attributed_to: str) -> bool:
    """Tell whether `text`, before which iOS wrote U+200E, is a notice; `attributed_to` is an actor or the group.

    >>> is_notice("Dan added Rut", "Family"), is_notice("image omitted", "Dan")
    (True, False)
    """
    return _is_notice(text[:MAX_NOTICE_CHARS], attributed_to)


@functools.lru_cache(maxsize=1024)  # iPhones mark every placeholder, and the same few make up most of them
def _is_notice(text: str, attributed_to: str) -> bool:
    if _PLACEHOLDER_RE.match(text):
        return False
    return text.startswith(f"{attributed_to} ") or bool(_ENCRYPTION_RE.match(text) or _EVENT_RE.search(text))


def is_encryption_notice(text: str) -> bool:
    """Tell whether `text` is the notice at the beginning of a chat that its messages are encrypted."""
    return _ENCRYPTION_RE.match(text) is not None


def is_quoting_notice(sender: str, text: str) -> bool:
    """Tell whether the line was split at a `: ` inside a quoted name of a group.

    >>> is_quoting_notice('Dan changed the subject from "A', 'B" to "C"')
    True
    """
    return _BEFORE_QUOTE_RE.search(sender) is not None and any(quote in text for quote in '"“”„«»')
