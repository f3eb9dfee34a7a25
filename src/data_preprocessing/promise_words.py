"""Does a message promise something, and does a later one look like keeping it? Decided by Hebrew and English words.

A promise is a first person's future or present of one of the acts below ("I'll send it", "אני בודקת ומחזירה תשובה"). Offers,
conditions, doubts, refusals, questions and reports ("maybe I'll", "אם תרצי אביא", "I said I'll") are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

from wording import Wording

FINAL_LETTERS = str.maketrans("כמנפצ", "ךםןףץ")
ANY = "any"  # said of whatever was promised: "done"
ANYTHING = "handle"  # what "I'm on it" promises


ACTS: dict[str, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("promise_acts.json").read_text(encoding="utf-8")
)["acts"]
ANY_DONE = r"בוצע|טופל|סודר|נעשה|זהו,? עשיתי|done|all done|it's done|sorted|taken care of"


def _one_of(column: str) -> str:
    """Return a pattern of each act's words in a column, named after the act."""
    named = "|".join(f"(?P<{name}_{column}>{'|'.join(act[column])})" for name, act in ACTS.items())
    return _with_final_letters(named)


def _with_final_letters(pattern: str) -> str:
    """Return a pattern in which a letter before an ending that may be missing has its final form without it.

    >>> _with_final_letters("אוספת?|שולחת?")
    'אוס(?:פת|ף)|שולחת?'
    """
    return re.sub(
        "([כמנפצ])([תה])[?]", lambda match: f"(?:{match[0][:2]}|{match[1].translate(FINAL_LETTERS)})", pattern
    )


def _any_of(*lines: str) -> re.Pattern[str]:
    """Return a pattern of the whole words in `lines`, which are separated by `|`."""
    return re.compile(rf"(?<![\w'])(?:{'|'.join(lines)})(?![\w'])")


# אשלח לך מחר, ואביא, ברור שאבוא   (not שאשלח alone: "he wants me to")
FUTURE_RE = re.compile(rf"(?<![\w'\"])(?:ו|(?<=ברור )ש|(?<=בטח )ש)?(?:{_one_of('future')})(?!\w)")
# אני שולח לך בערב, בודקת וחוזרת אליך: the present is a promise with a time, or with "to you"
PRESENT_RE = re.compile(
    r"(?:^|(?<=אני )|(?<=בסדר )|(?<=טוב )|(?<=אוקיי )|(?<=סבבה )|(?<=ברור )|(?<=תכף )|(?<=מחר )|(?<=כבר )|(?<=מיד ))"
    rf"(?:{_one_of('present')})(?!\w)"
)
PRESENT_NEEDS_RE = re.compile(
    r"(?<!\w)(?:ל(?:ך|כם|נו)|אותך|אליך|אלייך|אליכם|מחר|היום|הערב|בערב|בבוקר|בצהריים|עוד|תכף|תיכף|מיד|עכשיו|אחר כך|אח\"כ|ביום|בשבת|עד"
    r"|בשבוע|אחרי|כש|לקראת|בסופ|הלילה|לפני|רגע|כבר|בדרך)(?!\w)|^(?:סגור|סבבה) אני |(?<!\w)(?:כש|ב-?\d|ו(?:חוזרת?|מחזירה?|מעדכנת?|אומרת?) )"
)
ENGLISH_RE = re.compile(
    r"(?:(?<![\w'])(?:i'?ll|i will|i'm (?:gonna|going to)|im (?:gonna|going to)|i am going to|imma|i promise (?:to|i'?ll|i will)|we'?ll"
    r"|let me|lemme)|(?:^|(?<=ok )|(?<=sure )|(?<=and )|(?<=yes )|(?<=yep )|(?<=then )|(?<=but ))(?:will|gonna)) "
    r"(?:(?:just|also|definitely|then|quickly|be sure to|make sure to|surely|gladly|happily|personally|go|and|still|totally|def) )*"
    rf"(?:{_one_of('english')})(?![\w'])"
)
OTHER_PROMISE_RE = _any_of(
    r"i'm on it|im on it|^on it$|leave it (?:to|with) me|you have my word|will do(?=$|[,.!])",
    r"אני על זה|תשאירי? (?:את )?זה (?:לי|עליי?)|סמוך עליי?|סמכי עליי?|(?:אני )?(?:מבטיחה?|מתחייבת?) (?:ש\w*|ל\w{3,})",
)

# In the same clause before the words, or behind them: it is no promise.
NOT_BEFORE_RE = _any_of(
    "לא|אל|אולי|כנראה|אם|האם|אנסה|אשתדל|מה|מתי|איך|איפה|למה|כמה|מי|איזה|לאן|שלא|בחיים|לעולם|הלוואי|בטח שלא|רוצה|רוצים",
    "אמרתי|אמרת|אמר|אמרה|חשבתי|הבטחתי|יכול להיות|ייתכן|מקווה|פוחד|פוחדת|מפחד|מפחדת|לפני|מאז|במקום|תמיד|בדרך כלל|אף פעם",
    "לפעמים|כל יום|כל פעם|יאללה בוא|not|never|maybe|perhaps|probably|if|unless|whether|should|shall|said|told|thought|think",
    "guess|hope|wish|what|when|where|how|why|who|which|until|till|before|like|want|wants|wanted|always|usually|sometimes|every",
    "might|doubt|don'?t|won'?t|can'?t|no way|or",
)
NOT_AFTER_RE = _any_of(
    "אם|בתנאי|אלא אם|לי|תמיד|בדרך כלל|כל (?:יום|פעם|שבוע|בוקר|שבת)|if|unless|assuming|provided|every (?:day|time|week)|always",
    "usually|myself|never|instead of|a fool",
)
CONDITION_RE = _any_of("אם|ואם|בתנאי|if|unless")  # anywhere in the sentence
NOT_DONE_RE = _any_of("לא|טרם|עדיין|שכחתי|כמעט|לפני|not|haven'?t|hasn'?t|didn'?t|never|forgot|almost|should have")
NOT_DONE_CHARS = 20  # within so many before the words
TAG_QUESTION_RE = re.compile(r"(?<!\w)(?:בסדר|טוב|אוקיי?|סבבה|ok|okay|alright|cool|deal) ?\?+$")
SENTENCE_RE = re.compile(r"[^\n.!?;…]+[?]*")
CLAUSE_RE = re.compile(r"[^\n,.!?;…]+(?:[.,;…](?=\d)[^\n,.!?;…]+)*[?]*")
BUT_RE = re.compile(r" (?:אבל|but|ואז|because|כי|cause|cuz) ")


@cache
def _done_re(act: str) -> re.Pattern[str]:
    return _any_of(ANY_DONE) if act == ANY else _any_of(*ACTS[act]["done"], *ACTS[act]["done_english"])


_FUTURE_TOKENS = {word for act in ACTS.values() for word in re.findall(r"(?<!\w)א[א-ת]{2,}", "|".join(act["future"]))}
_PRESENT_TOKENS = {
    form
    for act in ACTS.values()
    for word, may_end_before in re.findall(r"([א-ת]{2,})([?]?)", "|".join(act["present"]))
    for form in ((word, word[:-2] + word[-2].translate(FINAL_LETTERS)) if may_end_before else (word,))
}
PROMISE_TOKENS = (
    {prefix + token for token in _FUTURE_TOKENS | _PRESENT_TOKENS for prefix in ("", "ו", "ש")}
    | {"i'll", "ill", "will", "gonna", "going", "promise", "imma", "we'll", "lemme", "let", "leave", "word"}
    | {"מבטיח", "מבטיחה", "מתחייב", "מתחייבת", "סמוך", "סמכי", "תשאיר", "תשאירי"}
)


def _first_word(pattern: str) -> set[str]:
    """Return with which words a text may begin that a pattern of promise_acts.json describes.

    >>> sorted(_first_word("organi[sz]ed it")), _first_word("fixed")
    (['organised', 'organized'], {'fixed'})
    """
    word = pattern.split()[0]
    return {word.replace("[sz]", letter) for letter in "sz"}


def _find_acts_of_words() -> dict[str, set[str]]:
    """Return the acts of which a text that holds a word may say that they are done."""
    done = {name: act["done"] + act["done_english"] for name, act in ACTS.items()} | {ANY: ANY_DONE.split("|")}
    acts_of_words: dict[str, set[str]] = {}
    for name, patterns in done.items():
        for pattern in patterns:
            for word in _first_word(pattern.replace(",?", "")):
                acts_of_words.setdefault(word, set()).add(name)
    return acts_of_words


ACTS_OF_WORDS = _find_acts_of_words()
DONE_WORDS = frozenset(ACTS_OF_WORDS)


def find_promise(wording: Wording) -> str | None:
    """Return the act that a message promises (a key of ACTS), None when it promises nothing.

    >>> from wording import wording_of
    >>> [find_promise(wording_of(text)) for text in ("אשלח לך מחר", "maybe I'll call", "ok, I'll call you tonight")]
    ['send', None, 'call']
    """
    plain, words = wording.plain, wording.words
    if PROMISE_TOKENS.isdisjoint(words) and "על זה" not in plain and "on it" not in plain:
        return None
    for sentence in SENTENCE_RE.findall(plain):
        if CONDITION_RE.search(sentence):
            continue
        for part in CLAUSE_RE.findall(sentence):
            for clause in BUT_RE.split(part):
                act = _act_of(clause.strip())
                if act is not None:
                    return act
    return None


def _act_of(clause: str) -> str | None:
    if clause.endswith("?") and TAG_QUESTION_RE.search(clause) is None:
        return None
    for pattern in (FUTURE_RE, ENGLISH_RE, PRESENT_RE, OTHER_PROMISE_RE):
        match = pattern.search(clause)
        if match is None:
            continue
        if NOT_BEFORE_RE.search(clause, 0, match.start()) or NOT_AFTER_RE.search(clause, match.end()):
            continue
        if pattern is not PRESENT_RE or PRESENT_NEEDS_RE.search(clause) is not None:
            return match.lastgroup.partition("_")[0] if match.lastgroup else ANYTHING
    return None


def acts_done(wording: Wording, promised: Collection[str] = frozenset(ACTS)) -> set[str]:
    """Return which of the `promised` acts a message says to be done; ANY when it does not say which.

    >>> from wording import wording_of
    >>> [acts_done(wording_of(text)) for text in ("שלחתי לך עכשיו", "עוד לא שלחתי", "done!")]
    [{'send'}, set(), {'any'}]
    """
    words = wording.words
    found: set[str] = set()
    if DONE_WORDS.isdisjoint(words):
        return found
    may_be_done = {
        act for word in DONE_WORDS.intersection(words) for act in ACTS_OF_WORDS[word] if act in promised or act == ANY
    }
    for clause in CLAUSE_RE.findall(wording.plain):
        if clause.endswith("?"):
            continue
        for act in may_be_done:
            for match in _done_re(act).finditer(clause):
                before = max(0, match.start() - NOT_DONE_CHARS)
                if NOT_DONE_RE.search(clause, before, match.start()) is None:
                    found.add(act)
    return found


def acts_shown(reason: str) -> set[str]:
    """Return the acts that a message of a kind (a key of DROP_REASONS) is itself: a picture is sent, a call is made.

    >>> acts_shown("call")
    {'call'}
    """
    return {name for name, act in ACTS.items() if reason in act["evidence"]}
