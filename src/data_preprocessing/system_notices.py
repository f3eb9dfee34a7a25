"""Tells the notices WhatsApp writes itself from what people write, where the form of the line alone misleads.

Only notices: placeholders for media, calls or deleted messages stand for something a person did, and are the cleaner's.
"""

from __future__ import annotations

import re

# Dan changed the subject from "Trip: Eilat" to "Trip"
QUOTED_NOTICE_RE = re.compile(
    r"""
    changed\ the\ (?:subject|group\ name) | created\ (?:the\ |this\ )?group | changed\ this\ group
    | נושא\ הקבוצה | שם\ הקבוצה | את\ הקבוצה
    | cambi[óo]\ el\ (?:asunto|nombre) | cre[óo]\ el\ grupo | (?:mudou|alterou)\ o\ (?:assunto|nome) | criou\ o\ grupo
    | hat\ den\ (?:Betreff|Gruppennamen) | hat\ die\ Gruppe | a\ changé\ le\ (?:sujet|nom) | a\ créé\ le\ groupe
    | ha\ cambiato\ (?:l['’]oggetto|il\ nome) | ha\ creato\ il\ gruppo | heeft\ (?:het\ onderwerp|de\ groep)
    | измени(?:л|ла|л\(-а\))\ (?:тему|название) | созда(?:л|ла|л\(-а\))\ группу | grubu\ oluşturdu | konuyu
    | غيّ?ر.{0,20}(?:موضوع|اسم) | أنشأ
    """,
    re.VERBOSE,
)
QUOTES_RE = re.compile('["“”„«»״\u201f]')

# [30/9/22, 18:15:42] Family: <U+200E>Messages and calls are end-to-end encrypted. ...
ENCRYPTION_RE = re.compile(
    r"""
    (?:Messages\ and\ calls\ are|Messages\ you\ send\ to\ this\ (?:group|chat)).{0,40}end-to-end\ encrypt
    | מוצפנות\ מקצה[ -]לקצה
    | cifrad[oa]s\ de\ extremo\ a\ extremo | criptografia\ de\ ponta\ a\ ponta | criptografadas\ de\ ponta\ a\ ponta
    | Ende-zu-Ende-verschlüsselt | chiffrés\ de\ bout\ en\ bout | crittografati?\ end-to-end | end-to-end\ versleuteld
    | защищены\ сквозным\ шифрованием | uçtan\ uca\ şifreli | مشفرة\ تمامًا\ بين\ الطرفين
    """,
    re.VERBOSE,
)

# What a group, a chat or its members did, where iOS writes U+200E in front and an actor or the group as the sender.
NOTICE_RE = re.compile(
    r"""
    end-to-end\ encrypt | \bcreated\ (?:the\ |this\ )?group | \badded\b | \bwas\ added | \bwere\ added | \bremoved\b
    | \bleft(?:\ the\ group)?[.]?$ | \bjoined\b | changed\ (?:the|this|their|to|your)\b | deleted\ th(?:is|e)\ group
    | \bnow\ an?\ admin | no\ longer\ an?\ admin | \bpinned\ a\ message | security\ code | disappearing\ messages
    | message\ timer | (?:un)?blocked\ this | business\ account | changed\ the\ | turned\ (?:on|off) | \brequested\ to\ join
    | reset\ (?:the|this)\ | community | ^\u200eThis\ chat\ is | is\ a\ contact\.?$ | official\ business
    | מוצפנות\ מקצה | (?:יצר|הוסיפ?|צירפ?|צירף|הסיר|החליפ?|החליף|שינ|מחק|הצטרפ?|הצטרף|יצא|עזב|הוסר|צורפ?|צורף)(?:/[הת]ה?|/תה|ה|ו|תה|את)?\ (?:את|אותך|באמצעות|לקבוצה|מהקבוצה)
    | (?:יצא/ה|עזב/ה|הוסר/ה|הצטרף/ה|צורף/ה|נוסף/ה|יצאה|עזבה)[.]?$ | ^\u200e(?:יצרת|צירפת|הסרת|הצטרפת|נוספת|צורפת|הוספת|יצאת|החלפת|הפכת|שינית|חסמת)
    | קוד\ האבטחה | הודעות\ (?:ש?נעלמות|זמניות) | הטיימר | (?:הצמיד|נעץ)(?:/ה|ה)?\ הודעה | נושא\ הקבוצה | תמונת\ ה?קבוצה | תיאור\ הקבוצה | הגדרות\ הקבוצה | שם\ הקבוצה
    """,
    re.VERBOSE,
)


def is_quoting_notice(sender: str, line: str) -> bool:
    """Tell whether `sender`, all before the first `: ` of `line`, breaks off inside a quoted name of a group.

    >>> is_quoting_notice('Dan changed the subject from "A', 'Dan changed the subject from "A: B" to "C"')
    True
    """
    return bool(QUOTES_RE.search(sender) and QUOTED_NOTICE_RE.search(sender) and QUOTES_RE.search(line, len(sender)))


def is_notice(sender: str, text: str) -> bool:
    """Tell whether `text`, which begins with U+200E, is a notice (of the chat, not of what `sender` sent)."""
    words = text.lstrip("\u200e")
    return words.startswith(sender + " ") or bool(ENCRYPTION_RE.search(text) or NOTICE_RE.search(text))
