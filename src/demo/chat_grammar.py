"""Made-up chats: topics that two people talk about, and the writing habits of each.

What is said (a topic's steps, with its slots filled once per conversation) is separate from how it is said (`Habits`),
so that two people say the same things in clearly different styles. The Hebrew avoids words that depend on the writer's
or the reader's gender. Dates, files and the WhatsApp format are left to `make_sample_chat.py`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

# A slot keeps one value through a conversation, so that an answer refers to what was asked.
SLOTS: dict[str, tuple[str, ...]] = {
    "place": ("הנמל", "השוק", "הים", "הפארק", "התחנה", "כיכר דיזנגוף", "הקניון", "הספרייה", "הבית של אמא"),
    "time": ("שש", "שבע", "שמונה", "תשע", "שמונה וחצי", "שבע ורבע", "עשר"),
    "day": ("ראשון", "שני", "שלישי", "רביעי", "חמישי", "שישי", "שבת"),
    "food": ("פיצה", "חומוס", "סושי", "שקשוקה", "המבורגר", "פסטה", "סלט", "מרק עדשים", "בורקס"),
    "friend": ("דנה", "איתי", "מאיה", "עומר", "יעל", "גיא", "שירה", "רועי"),
    "show": ("הסדרה החדשה", "הסרט על החלל", "פאודה", "הסרט הצרפתי", "התוכנית של אתמול", "העונה השנייה"),
    "city": ("חיפה", "ירושלים", "אילת", "נתניה", "באר שבע", "צפת", "עכו"),
    "thing": ("המטען", "הספר", "האוזניות", "המפתחות", "המטרייה", "התיק השחור", "הקסדה"),
    "pet": ("הכלב", "החתול", "התוכי"),
    "task": ("המצגת", "הדוח", "התרגיל", "הסיכום", "הטבלה", "המכתב"),
    "team": ("מכבי", "הפועל", "בית״ר", "הנבחרת"),
    "app": ("WhatsApp", "Spotify", "Zoom", "Waze", "Gmail"),
    "gift": ("ספר", "צמח", "סוודר", "בקבוק יין", "משחק קופסה", "עוגה"),
    "english_thing": ("the deck", "the invoice", "the budget", "the demo", "the plan"),
}

# A topic is a list of steps, said by the two people in turn. A step is a choice of wordings. `|` separates clauses: one
# person sends each as a message, another joins them with commas.
TOPICS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        ("מה המצב?", "מה נשמע?", "איך היה היום?", "הכול בסדר?"),
        ("הכול טוב | קצת עייפות", "בסדר גמור | יום ארוך", "סבבה | רק עכשיו חזרתי הביתה", "לא משהו | כאב ראש מהבוקר"),
        ("גם פה | היה יום עמוס", "איזה יופי", "ברור לגמרי | גם אצלי ככה", "צריך לנוח קצת"),
        ("נכון | בערב אנוח", "כן | מחר יום חדש", "בטוח | לילה טוב בינתיים"),
    ),
    (
        ("בא לך לאכול {food}?", "מתים פה מרעב | אולי {food}?", "מה אוכלים היום? | אני בעד {food}"),
        ("בטח | {food} תמיד", "{food}? | אכלתי אתמול", "מעולה | מאיפה מזמינים?", "אולי משהו אחר | אין לי כוח ל{food}"),
        ("מהמקום ליד {place}", "אפשר גם בבית | יש כמעט הכול", "אז נחליט בערב", "יש מבצע היום | שווה"),
        ("סגור | בשעה {time}", "טוב | אביא שתייה", "מצוין | נדבר לפני"),
    ),
    (
        ("נפגשים ב{day}?", "יש לך זמן ביום {day}?", "מה עושים ביום {day}?"),
        ("כן | איפה?", "ב{day} אפשר | רק אחרי {time}", "לא בטוח | אבדוק ואחזור אליך"),
        ("אולי {place}?", "{place} | כמו בפעם שעברה", "חשבתי על {place}"),
        ("{place} מעולה | באיזו שעה?", "רחוק לי קצת | אבל בסדר", "סבבה | אגיע באוטובוס"),
        ("ב{time}", "בערך {time} | לא מאוחר", "{time} | ובלי איחורים"),
        ("קבענו", "מתאים לי | נתראה", "טוב | אשים תזכורת"),
    ),
    (
        ("ראית את {show}?", "התחלתי לראות את {show}", "שמעתי מ{friend} על {show} | ראית?"),
        ("עוד לא | שווה?", "ראיתי חצי | נרדמתי באמצע", "כן | היה ממש טוב", "כן | לא התלהבתי"),
        ("הסוף הפתיע אותי", "המוזיקה שם מעולה", "קצת ארוך | אבל יפה", "השחקנים נהדרים"),
        ("אז אראה בסוף השבוע", "בלי ספוילרים בבקשה", "נראה את זה ביחד | ביום {day}?"),
    ),
    (
        ("שלחתי לך את {task}", "סיימתי את {task} | אפשר מבט?", "{task} אצלך במייל"),
        ("קיבלתי | אעבור על זה בערב", "תודה | נראה טוב מאוד", "עוד לא הגיע | אפשר שוב?"),
        ("יש שם טעות בעמוד השני", "חסר רק הסוף", "אם משהו לא ברור | אפשר לשאול", "צריך להגיש ביום {day}"),
        ("הבנתי | אתקן מחר", "מצוין | בהצלחה", "סבבה | עד {day} זה מוכן"),
    ),
    (
        ("שכחתי אצלך את {thing}", "ראית אולי את {thing}?", "איפה {thing}? | מחפשים כבר שעה"),
        ("כן | זה על השולחן", "לא ראיתי | בדקת באוטו?", "נדמה לי שזה אצל {friend}", "זה אצלי | אביא ביום {day}"),
        ("תודה | הצלת אותי", "מזל | כבר חשבתי שזה אבד", "בדקתי | גם שם אין"),
        ("אין בעיה", "קורה לכולם", "בפעם הבאה אשמור טוב יותר"),
    ),
    (
        ("נוסעים ל{city} בסוף השבוע?", "חשבתי על טיול ל{city}", "היית פעם ב{city}?"),
        ("{city} יפה עכשיו | אני בפנים", "רחוק | אבל למה לא", "הייתי לפני שנה | מקסים שם"),
        ("אפשר ברכבת | שעתיים וזהו", "גם {friend} בעניין", "צריך למצוא מקום לישון"),
        ("אחפש מלון קטן", "רק שלא ירד גשם", "יוצאים מוקדם | בשעה {time}"),
    ),
    (
        ("ראית את המשחק של {team}?", "היה אתמול משחק של {team} | ראית?", "יש משחק של {team} היום"),
        ("ראיתי | איזה סוף", "פספסתי | מה היה?", "שלוש אפס | לא להאמין", "שוב הפסידו | כרגיל"),
        ("השופט היה גרוע", "בדקה האחרונה הכניסו גול", "השוער הציל אותם"),
        ("בשבוע הבא ננצח", "כדורגל זה לא בשבילי", "ביום {day} יש עוד משחק"),
    ),
    (
        ("{pet} שלי חולה", "{pet} אכל לי את הנעל", "לא תאמינו מה {pet} עשה"),
        ("אוי לא | מה קרה?", "מסכן | לקחת לווטרינר?", "לא מאמין | שוב?"),
        ("כבר בסדר | ישן כל היום", "היינו אצל הרופא | קיבל כדור", "עכשיו הוא מסתכל עליי כאילו כלום"),
        ("ליטוף גדול ממני", "איזה כיף שהכול בסדר", "הוא הבוס בבית"),
    ),
    (
        ("יום הולדת ל{friend} ביום {day}", "מה קונים ל{friend}?", "חוגגים ל{friend} | מגיעים?"),
        ("נכון | צריך מתנה", "אולי {gift}?", "שכחתי לגמרי | מזל שהזכרת"),
        ("{gift} זה רעיון טוב", "כבר יש {gift} | משהו אחר", "נתחלק חצי חצי"),
        ("אני על העוגה", "אעבור בחנות מחר", "סגור | בשעה {time} אצלי"),
    ),
    (
        ("יורד גשם אצלך?", "איזה חום היום", "קר פה | מה אצלכם?"),
        ("מבול | הרחוב מוצף", "שמש מלאה", "רוח חזקה | נשברה לי המטרייה", "חם מאוד | לא יוצאים מהבית"),
        ("אומרים שמחר ישתפר", "עד {day} זה נמשך", "מזג אוויר משוגע"),
        ("העיקר שיש מזגן", "נשארים עם תה", "מתגעגעים לאביב"),
    ),
    (
        ("{app} לא עובד לי", "גם אצלך {app} נתקע?", "איך מעדכנים את {app}?"),
        ("אצלי עובד | אולי הרשת", "אולי צריך להפעיל מחדש", "כן | מהבוקר ככה"),
        ("עשיתי restart | עכשיו בסדר", "ניסיתי | לא עזר", "אולי צריך update"),
        ("איזה מזל", "technology | מה לעשות", "בסוף נחזור למכתבים"),
    ),
    (
        (
            "did you see {english_thing}?",
            "can you send me {english_thing}?",
            "quick question | where is {english_thing}?",
        ),
        ("yes | just sent it", "not yet | give me ten minutes", "it's in the shared folder"),
        ("thanks | looks good", "got it | one typo on page two", "perfect | see you at the meeting"),
        ("no problem", "will fix it today", "ok | talk later"),
    ),
    (
        ("כבר בחוץ?", "בדרך?", "כמה זמן עד שמגיעים?"),
        ("עוד עשר דקות", "יש פקק בכניסה ל{city}", "כבר ליד {place}", "רק עכשיו יצאתי | סליחה"),
        ("אין לחץ | מחכים", "הזמנתי כבר קפה", "אז נתחיל בלעדיך"),
        ("הגעתי", "רואה אותך", "תודה על הסבלנות"),
    ),
    (
        ("איך בעבודה?", "מה עם הפרויקט?", "התחיל כבר הקורס?"),
        ("לחוץ | אבל מתקדמים", "הבוס רוצה את {task} עד {day}", "משעמם | שום דבר חדש", "מעניין דווקא | לומדים המון"),
        ("בהצלחה | זה יעבור", "צריך חופש דחוף", "לאט לאט | הכול יסתדר"),
        ("חולמים על {city}", "בסוף החודש לוקחים יומיים", "כן | תודה ששאלת"),
    ),
)

CLAUSE_MARK = "|"


@dataclass(frozen=True)
class Habits:
    """How one person writes. Rates are probabilities per message, `split_rate` per boundary between two clauses."""

    name: str
    split_rate: float
    openers: tuple[str, ...] = ()
    opener_rate: float = 0.0
    endings: tuple[str, ...] = ("",)  # one is drawn for each message that is not a question
    question_endings: tuple[str, ...] = ("?",)
    laughter: tuple[str, ...] = ()
    laughter_rate: float = 0.0
    emoji: tuple[str, ...] = ()
    emoji_rate: float = 0.0
    stretch_rate: float = 0.0  # of repeating the last letter of a message


# The two of the made-up export: Noam in bursts without full stops, Ruth in whole sentences.
NOAM = Habits(
    name="Noam",
    split_rate=0.9,
    openers=("אחי", "יאללה", "וואי", "תכלס", "bro"),
    opener_rate=0.4,
    endings=("", "", "", "!!"),
    question_endings=("??", "?", "???"),
    laughter=("חחח", "חחחחח", "חחחחחחח"),
    laughter_rate=0.25,
    emoji=("😂", "🔥", "💪🏽", "😅"),
    emoji_rate=0.3,
    stretch_rate=0.12,
)
RUTH = Habits(
    name="Ruth",
    split_rate=0.05,
    openers=("היי נועם,", "תקשיב,", "שמע,", "אגב,"),
    opener_rate=0.2,
    endings=(".", ".", "!", "..."),
    laughter=("haha", ":)"),
    laughter_rate=0.08,
    emoji=("🌸", "❤️", "🙏🏼", "👨‍👩‍👧‍👦"),
    emoji_rate=0.12,
)

# Other people, whose chats train the small base: a little of every habit.
MANY_EMOJI = ("🙂", "👍", "😂", "❤️", "🔥", "🌸", "🙏🏼", "💪🏽", "😅", "😉", "🎉", "👨‍👩‍👧‍👦")
NEUTRAL_PEOPLE = (
    Habits("Dana", split_rate=0.1, endings=(".",), emoji=MANY_EMOJI, emoji_rate=0.03),
    Habits("Itai", split_rate=0.2, endings=("", "."), laughter=("חח", "חחח", "haha"), laughter_rate=0.03),
    Habits("Maya", split_rate=0.1, endings=(".", "!"), openers=("טוב,", "אז", "היי,"), opener_rate=0.1),
    Habits("Omer", split_rate=0.15, endings=("", "...", "."), emoji=MANY_EMOJI, emoji_rate=0.02),
    Habits("Yael", split_rate=0.1, endings=(".", ""), openers=("שמע,", "תכלס", "וואי"), opener_rate=0.04),
    Habits("Guy", split_rate=0.1, endings=(".",), question_endings=("?", "??"), stretch_rate=0.01),
)


def write_conversation(
    people: tuple[Habits, Habits], rng: random.Random, num_topics: int | None = None
) -> list[tuple[str, list[str]]]:
    """Return one conversation as turns `(name, messages)`; the first writer is drawn at random.

    Where topics meet, the same person may have two turns in a row.
    """
    slots = {name: rng.choice(values) for name, values in SLOTS.items()}
    turns: list[tuple[str, list[str]]] = []
    for topic in rng.sample(TOPICS, num_topics or rng.choice((1, 1, 2, 2, 3))):
        first = rng.randrange(2)
        for number, wordings in enumerate(topic[: rng.randint(min(3, len(topic)), len(topic))]):
            writer = people[(first + number) % 2]
            clauses = rng.choice(wordings).format(**slots).split(CLAUSE_MARK)
            turns.append((writer.name, write_messages([clause.strip() for clause in clauses], writer, rng)))
    return turns


def write_messages(clauses: list[str], habits: Habits, rng: random.Random) -> list[str]:
    """Return `clauses` as the messages this person would send."""
    groups = [[clauses[0]]]
    for clause in clauses[1:]:
        if rng.random() < habits.split_rate:
            groups.append([clause])
        else:
            groups[-1].append(clause)
    messages = [_dress(", ".join(group).replace("?, ", "? "), habits, rng) for group in groups]
    if rng.random() < habits.opener_rate:
        opener = rng.choice(habits.openers)
        if rng.random() < habits.split_rate and not opener.endswith(","):
            messages.insert(0, opener)
        else:
            messages[0] = f"{opener} {messages[0]}"
    if rng.random() < habits.laughter_rate:
        laughter = rng.choice(habits.laughter)
        if rng.random() < habits.split_rate:
            messages.append(laughter)
        else:
            messages[-1] = f"{messages[-1]} {laughter}"
    return messages


def _dress(text: str, habits: Habits, rng: random.Random) -> str:
    is_question = text.endswith("?")
    text = text.rstrip("?")
    if not is_question and rng.random() < habits.stretch_rate:
        text += text[-1] * rng.randint(2, 4)
    text += rng.choice(habits.question_endings if is_question else habits.endings)
    if rng.random() < habits.emoji_rate:
        text += " " + rng.choice(habits.emoji)
    return text


def neutral_conversations(num_conversations: int, seed: int) -> list[list[tuple[str, list[str]]]]:
    """Return conversations of other people, each as `write_conversation` returns it."""
    rng = random.Random(seed)
    return [
        write_conversation((first, second), rng)
        for first, second in (rng.sample(NEUTRAL_PEOPLE, 2) for _ in range(num_conversations))
    ]
