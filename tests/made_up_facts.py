"""A made-up person who answers from facts told in earlier conversations, and texts in which copying from the context pays.

Names of pets, workplaces, prices, plans: each is told once, by the person or by the partner, and asked for later in other
words. Only who remembers, or reads the earlier exchange, can know the answer. How the other made-up people write is left to
`made_up_people`; their topics fill the rest of the conversations.

    write_facts(seed=0)     the records of formatted_data.jsonl; "fact" says what was told or asked in the first exchange
    recall_talks(200, 0)    other people who are asked for what stands beside the question, for a base that can copy
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from made_up_people import CONVERSATION_GAP, FIRST_DAY, plain_conversations

Record = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of fact: about what, what it may be, how it is told, asked for and answered."""

    name: str
    keys: tuple[str, ...]
    values: tuple[str, ...]
    tells: tuple[str, ...]
    asks: tuple[str, ...]
    answers: tuple[str, ...]


class Told(NamedTuple):
    """One exchange: what the partner writes, and the reply."""

    heard: str
    reply: str


FRIENDS = ("אלון", "נועה", "ברק", "הילה", "אורי", "סיגל", "מתן", "ליאת", "גדי", "שירלי", "זהר", "קרן", "אסף", "דפנה",
           "רועי", "ענבל", "יונתן", "מורן", "תומר", "אביגיל")  # fmt: skip
OBJECTS = ("המקדחה", "הסולם", "האוהל", "המזוודה", "הקורקינט", "המקרן", "הגיטרה", "המיקסר", "המצלמה", "הכידון", "הרחפן",
           "הווסט", "הפטיש", "המשאבה", "הבלנדר", "הצידנית", "הפנס", "המשקפת", "השטיח", "הקסדה")  # fmt: skip
PAPERS = ("הדרכונים", "המפתח של המחסן", "תעודת הלידה", "הקבלות", "התרופות", "הסוללות", "השטרות", "החוזה של הדירה",
          "צילומי הרנטגן", "כרטיס החניה", "הצ׳קים", "רישיון הרכב", "האלבום", "הנרות", "המטען", "הטבעת", "התפרים",
          "הווילון", "הזרעים", "הדגל")  # fmt: skip
PETS = ("בוני", "לוקי", "מוקה", "שוקו", "פיצי", "רקסי", "נלה", "סימבה", "טופי", "לולה", "ביסלי", "גרי", "זואי", "פנקו",
        "חומוס", "קפצון", "פילפל", "טוטו", "מיצי", "סנופי", "ברוני", "אוראו", "ווקי", "דובון")  # fmt: skip
FIRMS = ("תדיראן", "אלביט", "אסותא", "מגדל", "רפאל", "תנובה", "שטראוס", "אגד", "אינטל", "סלקום", "בזק", "כתר", "עלית",
         "אוסם", "הראל", "שופרסל", "פוקס", "קסטרו", "גולף", "טבע", "וולט", "נגב", "צים", "מקורות")  # fmt: skip
TOWNS = ("תל אביב", "רחובות", "מודיעין", "כרמיאל", "אשקלון", "טבריה", "הרצליה", "נהריה", "אילת", "ערד", "צפת", "יבנה",
         "עפולה", "דימונה", "חדרה", "לוד", "קיסריה", "מטולה", "נתיבות", "שדרות", "עכו", "בית שאן", "גדרה", "ירוחם")  # fmt: skip
PLACES = ("במגירה במטבח", "מאחורי הספרים", "בקופסה הכחולה", "מתחת למיטה", "בתיק הישן", "על המקרר", "בארון בסלון",
          "אצל סבתא", "במרתף", "בתוך הפסנתר", "בעליית הגג", "ליד התנור", "באוטו", "בשידה הלבנה", "בסלסלה", "במרפסת",
          "בכיס של המעיל", "מאחורי המראה", "בצנצנת", "במשרד")  # fmt: skip
FOODS = ("בוטנים", "שומשום", "עגבניות", "כוסברה", "פטריות", "דגים", "חצילים", "תותים", "שוקולד", "גבינה", "סלרי", "ביצים",
         "אגוזים", "חרדל", "בצל", "קיווי", "סויה", "תירס", "דבש", "פלפל")  # fmt: skip
PRICES = tuple(
    f"{much} שקל"
    for much in ("שבעים", "תשעים", "מאה ועשרים", "מאה חמישים", "מאתיים", "מאתיים שמונים", "שלוש מאות", "ארבע מאות",
                 "חמש מאות וחמישים", "שש מאות", "שבע מאות", "שמונה מאות", "אלף", "אלף ומאה", "אלפיים", "שלושת אלפים",
                 "חמשת אלפים", "שישים", "ארבעים", "עשרים")
)  # fmt: skip
DATES = tuple(
    f"ביום {day} {when}"
    for day in ("ראשון", "שני", "שלישי", "רביעי", "חמישי", "שישי")
    for when in ("בבוקר", "בצהריים", "בערב", "אחרי חצות")
)

KINDS = (
    Kind("pet", FRIENDS, PETS,
         ("לכלב החדש של {key} קוראים {value}", "הגור של {key} קיבל את השם {value}", "ליטפתי את {value}, הכלב של {key}",
          "{key} והכלב {value} עברו כאן בבוקר"),
         ("איך קוראים לחיה של {key}?", "שכחתי את השם של ההוא עם הזנב אצל {key}", "מי נובח אצל {key}?",
          "מה השם של הכלב של {key}?"),
         ("קוראים לו {value}", "{value}, איך אפשר לשכוח", "זה {value}", "{value} כמובן")),
    Kind("work", FRIENDS, FIRMS,
         ("העבודה החדשה של {key} היא ב{value}", "קיבלו את {key} ל{value}", "{key} כבר שבוע ב{value}",
          "חתמו עם {key} חוזה ב{value}"),
         ("איפה {key} היום מבחינת פרנסה?", "באיזו חברה {key}?", "מי מעסיק את {key}?", "לאן {key} נוסע כל בוקר למשרד?"),
         ("ב{value}", "{key} ב{value} עכשיו", "נדמה לי שב{value}", "{value}, מאז הקיץ")),
    Kind("wedding", FRIENDS, TOWNS,
         ("החתונה של {key} תהיה ב{value}", "{key} עושים את האירוע ב{value}", "האולם של {key} נמצא ב{value}",
          "הגיעה הזמנה לחתונה של {key}, זה ב{value}"),
         ("לאן נוסעים לחגוג עם {key}?", "באיזו עיר מתחתנים אצל {key}?", "איפה השמחה של {key}?",
          "תזכירי איפה {key} מתחת לחופה"),
         ("ב{value}", "נוסעים ל{value}", "{value}, זה רחוק", "החופה ב{value}")),
    Kind("flight", FRIENDS, DATES,
         ("הטיסה של {key} יוצאת {value}", "{key} ממריא {value}", "קנו כרטיס, {key} עוזב {value}",
          "{key} בשדה התעופה {value}"),
         ("מתי נפרדים מ{key}?", "באיזה יום {key} נוסע לחוץ לארץ?", "מתי המטוס של {key}?", "עד מתי {key} עוד כאן?"),
         ("{value}", "{value}, רשמתי", "יוצאים {value}", "זה {value}")),
    Kind("food", FRIENDS, FOODS,
         ("{key} לא נוגע ב{value}", "לשים לב, ל{key} אסור {value}", "הרופא הוציא ל{key} את ה{value} מהתפריט",
          "{key} נפוח מ{value}, זו אלרגיה"),
         ("מה לא לבשל כש{key} בא?", "למה {key} רגיש?", "ממה להיזהר באוכל עם {key}?", "מה {key} לא יכול לאכול?"),
         ("{value}", "רק בלי {value}", "אסור {value}", "{value}, זה מסוכן")),
    Kind("price", OBJECTS, PRICES,
         ("{key} עלתה לנו {value}", "שילמתי על {key} {value}", "מצאתי את {key} ב{value}", "ביקשו על {key} {value}"),
         ("כמה כסף הלך על {key}?", "מה המחיר של {key}?", "כמה יצא {key} בסוף?", "זה היה יקר, {key}?"),
         ("{value}", "{value} בסך הכול", "שילמנו {value}", "יצא {value}")),
    Kind("lent", OBJECTS, FRIENDS,
         ("{key} אצל {value} עד החג", "{value} לקח את {key}", "השאלתי ל{value} את {key}", "נתתי את {key} ל{value}"),
         ("אצל מי {key}?", "מי צריך להחזיר את {key}?", "לאן נעלם {key}?", "למי מסרנו את {key}?"),
         ("אצל {value}", "{value} לקח", "ל{value}, בקיץ", "זה אצל {value}")),
    Kind("place", PAPERS, PLACES,
         ("{key} עכשיו {value}", "שמתי את {key} {value}", "העברתי את {key}, זה {value}", "את {key} מחזיקים {value}"),
         ("איפה {key}?", "צריך דחוף את {key}, איפה לחפש?", "איפה החבאת את {key}?", "לאן הכנסנו את {key}?"),
         ("{value}", "{value}, מימין", "תסתכל {value}", "זה {value}")),
)  # fmt: skip
OPENERS = ("מה חדש?", "יש חדשות?", "ספרי משהו", "מה קורה אצלכם?", "מה נשמע?", "איך עבר היום?")
REACTIONS = ("וואו, לא ידעתי", "טוב לדעת", "רשמתי לי", "באמת?", "איזה יופי", "סוף סוף", "שמעתי משהו כזה", "אזכור את זה")
LETTERS = "אבגדהוזחטילמנסעפצקרשת"

ASKED, TOLD = "asked", "told"
MOST_ASKS = 3
LAST_TELLING = 0.85  # of the period: some time is left to ask
FACTLESS_SHARE = 0.15
SHARE_GOING_ON = 0.4  # of the conversations with a fact
SHARE_TOLD_BY_PERSON = 0.5
NUM_RECALLED = 2  # questions of one talk
SHARE_UNTOLD = 0.1  # of the questions
HOURS_APART = 3 * CONVERSATION_GAP


def write_facts(seed: int) -> list[Record]:
    """Return the records of the person who answers from facts, in the order of time, as stage 1 makes them."""
    rng = random.Random(f"facts {seed}")
    planned: list[tuple[float, str, Kind, str, str]] = []
    for kind in KINDS:
        for key in kind.keys:
            value = rng.choice([value for value in kind.values if value != key])
            told_at = rng.uniform(0, LAST_TELLING)
            planned.append((told_at, TOLD, kind, key, value))
            for _ in range(rng.randint(1, MOST_ASKS)):
                planned.append((rng.uniform(told_at, 1), ASKED, kind, key, value))
    planned.sort(key=lambda plan: plan[0])
    fillers = iter(plain_conversations(3 * len(planned), seed))
    records: list[Record] = []
    for _, act, kind, key, value in planned:
        if rng.random() < FACTLESS_SHARE:
            records.append({"messages": _in_her_words(next(fillers)["messages"], rng)})
        told = _say(kind, act, key, value, rng)
        turns = [{"role": "user", "content": told.heard}, {"role": "assistant", "content": told.reply}]
        if rng.random() < SHARE_GOING_ON:
            turns += _one_more_exchange(next(fillers)["messages"])
        fact = {"act": act, "kind": kind.name, "key": key, "value": value}
        records.append({"messages": _in_her_words(turns, rng), "fact": fact})
    for number, record in enumerate(records):
        record |= {
            "chat": "Omer",
            "started_at": (FIRST_DAY + number * HOURS_APART).isoformat(),
            "with": ["Omer"],
        }
    return records


def _one_more_exchange(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    start = 0 if messages[0]["role"] == "user" else 1
    return messages[start : start + 2]


def _say(kind: Kind, act: str, key: str, value: str, rng: random.Random, every: int = 1) -> Told:
    """Return the exchange in which a fact is told (by either side) or asked for, in one of every `every`-th frame."""
    if act == ASKED:
        heard, reply = rng.choice(kind.asks[::every]), rng.choice(kind.answers[::every])
    elif rng.random() < SHARE_TOLD_BY_PERSON:
        heard, reply = rng.choice(OPENERS), rng.choice(kind.tells[::every])
    else:
        heard, reply = rng.choice(kind.tells[::every]), rng.choice(REACTIONS)
    return Told(*(text.format(key=key, value=value) for text in (heard, reply)))


def _in_her_words(turns: Sequence[dict[str, str]], rng: random.Random) -> list[dict[str, str]]:
    """Return the turns, the person's own with a habit: a word before, a smile or dots behind."""
    return [
        turn
        if turn["role"] == "user"
        else turn
        | {
            "content": rng.choice(("", "", "נו, ", "אה, "))
            + turn["content"].rstrip(".!")
            + rng.choice(("", " 🙂", "...", " חח"))
        }
        for turn in turns
    ]


class RecallTalk(NamedTuple):
    """What stands beside a question, and the turns that follow it."""

    past: list[Told]
    turns: list[dict[str, str]]


def recall_talks(num_talks: int, seed: int, num_past: int) -> list[RecallTalk]:
    """Return talks of other people, with every second frame; most answers stand in the exchanges beside the questions.

    Half of the keys and values are invented words, so that they can only be copied.
    """
    rng = random.Random(f"recall {seed}")

    def fact() -> tuple[Kind, str, str]:
        kind = rng.choice(KINDS)
        return (
            kind,
            _invent(rng) if rng.random() < 0.5 else rng.choice(kind.keys),
            _invent(rng) if rng.random() < 0.6 else rng.choice(kind.values),
        )

    def told(kind: Kind, key: str, value: str) -> Told:
        return _say(kind, ASKED if rng.random() < 0.3 else TOLD, key, value, rng, every=2)

    talks = []
    for _ in range(num_talks):
        known = [fact() for _ in range(rng.randint(1, num_past))]
        for place, (kind, _, value) in enumerate(known[1:], start=1):
            if rng.random() < 0.3 and kind is not known[0][0]:
                known[place] = kind, known[0][1], value  # of the same person or thing: the right one has to be found
        asked = rng.sample(known, min(len(known), NUM_RECALLED))
        past = [told(*one) for one in known]
        turns = []
        for kind, key, value in asked:
            if rng.random() < SHARE_UNTOLD:
                kind, key, value = fact()
            exchange = _say(kind, ASKED, key, value, rng, every=2)
            turns += [{"role": "user", "content": exchange.heard}, {"role": "assistant", "content": exchange.reply}]
        talks.append(RecallTalk(past, turns))
    return talks


def copying_talks(num_talks: int, seed: int, num_past: int) -> list[RecallTalk]:
    """Return talks without language, in which every word of a reply can be copied: lists said again, and pairs recalled."""
    rng = random.Random(f"copying {seed}")
    talks = []
    for _ in range(num_talks):
        past: list[Told] = []
        if rng.random() < 0.5:
            words = " ".join(_invent(rng) for _ in range(rng.randint(4, 8)))
            said = [Told(words, words)]
        else:
            past = [Told(_invent(rng), _invent(rng)) for _ in range(num_past + 1)]
            said = rng.sample(past, num_past)
        turns = [
            {"role": role, "content": text}
            for told in said
            for role, text in zip(("user", "assistant"), told, strict=True)
        ]
        talks.append(RecallTalk(past, turns))
    return talks


def _invent(rng: random.Random) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randint(3, 5)))
