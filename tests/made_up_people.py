"""Made-up people whose habits differ in kind, and their chats: what the training defaults and the style report are tried on.

What is said (a topic's frames, with slots filled once per topic and conversation) is apart from how it is said (one function for each
person). An answer names what was asked about, so that a reply that does not fit its question can be told. The frames
avoid digits, links and all else that stage 1 hides or drops, but for the voice notes.

    messages = write_chat("Tamar", num_conversations=200, seed=0)
    as_conversations(messages, "Tamar")     the records of formatted_data.jsonl, as stage 1 makes them
    as_exports(messages)                    the WhatsApp exports, one for each chat
    plain_conversations(200, seed=0)        other people on the same topics, for a base that knows the language
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

VOICE_NOTE = "<Media omitted>"  # as an Android phone with English settings exports it
FIRST_DAY = datetime(2023, 1, 1)
HOURS = (7, 10, 13, 16, 19, 22)  # at which conversations begin; hours of silence lie between
TURN_GAP = timedelta(minutes=10)  # stage 1's: in a group a later message of the same person is named again
CONVERSATION_GAP = timedelta(hours=1)  # stage 1's


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    chat: str  # the partner's name, or the group's
    sent_at: datetime
    sender: str
    text: str


@dataclass(frozen=True)
class Topic:
    """What is said about one thing: every answer fits every question, every other frame may follow."""

    asks: tuple[str, ...]
    answers: tuple[str, ...]
    reasons: tuple[str, ...]  # behind an answer, or as a remark at the end
    counters: tuple[str, ...]  # a question in return
    follow_ups: tuple[str, ...]  # what the asker says to the answer

    @property
    def num_frames(self) -> int:
        """How many different sentences there are, before the slots are filled."""
        return sum(map(len, (self.asks, self.answers, self.reasons, self.counters, self.follow_ups)))


SLOTS: dict[str, tuple[str, ...]] = {
    "dish": ("קוסקוס", "לזניה", "פשטידה", "אורז עם עדשים", "דג בתנור", "מרק בצל", "קציצות", "פלאפל", "שניצל", "ריזוטו"),
    "day": ("ראשון", "שני", "שלישי", "רביעי", "חמישי", "שישי"),
    "hour": ("שמונה", "תשע", "עשר", "שתיים", "שלוש", "ארבע וחצי", "חמש", "שש ורבע"),
    "doctor": ("רופא השיניים", "רופא העיניים", "האורתופד", "הפיזיותרפיסט", "רופא המשפחה", "הדרמטולוג"),
    "repair": ("הדוד", "המזגן", "הברז במטבח", "התריס", "המדיח", "התנור", "הצינור בחצר", "המנעול של המרפסת"),
    "city": ("תל אביב", "רחובות", "מודיעין", "כרמיאל", "אשקלון", "טבריה", "הרצליה", "נהריה"),
    "child": ("הקטן", "האחיין", "הילד של מיכל", "הבן של השכנים", "הנכד", "האח הקטן"),
    "title": ("הספר של גרוסמן", "הסיפור הקצר", "ספר המתח", "הרומן האיטלקי", "ספר הבישול", "המותחן השוודי"),
    "task": ("התקציב", "מכתב ההצעה", "לוח הזמנים", "הסקר", "החוזה", "הפרוטוקול", "מסמך הדרישות", "מפרט הספק"),
    "sport": ("ריצה", "שחייה", "יוגה", "פילאטיס", "אופניים", "טיפוס", "טניס"),
    "friend": ("אלון", "נועה", "ברק", "הילה", "אורי", "סיגל", "מתן", "ליאת"),
    "gift": ("אגרטל", "תיק גב", "מגבות", "משחק שח", "סכין שף", "צעיף", "אוזניות", "מנורה"),
    "street": ("החניון של העירייה", "הרחוב שלנו", "הסמטה ליד הדואר", "החניה של הבניין", "המגרש מאחורי הסופר"),
    "garment": ("מעיל", "סוודר דק", "מגפיים", "כובע", "חולצה קצרה", "סנדלים"),
    "device": ("המחשב", "הטלפון", "הראוטר", "השעון החכם", "הטאבלט", "המסך", "הרמקול"),
    "pet": ("הכלב", "החתול", "הגור", "הארנב", "התוכי של סבתא"),
    "item": ("חלב", "קמח", "נרות", "נייר אפייה", "שמן זית", "עגבניות", "קפה", "גבינה לבנה", "ביצים"),
    "plant": ("הבזיליקום", "הפיקוס", "עץ הלימון", "הסחלב", "הקקטוס", "הפילודנדרון"),
    "neighbour": ("השכן מלמעלה", "ועד הבית", "הדייר החדש", "השכן מקומת הקרקע", "השכן ממול"),
    "subject": ("סטטיסטיקה", "כימיה", "היסטוריה", "תנ״ך", "ערבית", "מיקרו כלכלה", "אנטומיה"),
    "show": ("ההופעה של שלמה ארצי", "האופרה", "ההצגה בקאמרי", "ההקרנה בסינמטק", "ההופעה בשוני", "ההצגה בתיאטרון החאן"),
    "file": ("the contract", "the slides", "the quarterly numbers", "the draft", "the floor plan", "the agenda"),
    "spot": ("the airport", "the beach", "the farmers market", "the old port", "the campsite", "the museum"),
    "colleague": ("Alon", "Noa", "Barak", "Sigal", "the intern", "the lawyer"),
    "weekday": ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday"),
    "clock": ("eight", "half past nine", "noon", "three", "quarter to five", "six"),
}
# Their values begin with the article where they begin with its letter: after a preposition it is not written.
SLOTS_WITH_ARTICLE = {
    "doctor",
    "repair",
    "child",
    "title",
    "task",
    "street",
    "device",
    "pet",
    "plant",
    "neighbour",
    "show",
}
PREPOSITION_RE = re.compile(r"(?<!\w)([בל])\{(\w+)\}")

TOPICS: tuple[Topic, ...] = (
    Topic(
        asks=("מה אוכלים הערב?", "בא למישהו {dish} הערב?", "יש {dish} או שמזמינים?", "מה לבשל להיום?"),
        answers=("נשאר {dish} מאתמול", "אפשר {dish}, יש הכול בבית", "לא {dish} שוב, זה היה כבר ביום {day}",
                 "עדיף להזמין, אין כוח לעמוד על {dish}", "{dish} נשמע מצוין"),
        reasons=("המקרר כמעט ריק", "צריך לגמור את מה שיש", "השוק היה סגור היום", "זה מוכן בחצי שעה"),
        counters=("ומה יהיה ליד {dish}?", "מי קונה לחם?", "באיזו שעה יושבים לאכול?", "למה לא משהו קל יותר?"),
        follow_ups=("אז אני על השולחן והצלחות", "טוב, רק בלי הרבה מלח", "נשמע טעים, אחכה לזה"),
    ),
    Topic(
        asks=("מתי התור אצל {doctor}?", "כבר נקבע תור ל{doctor}?", "מה אמרו אצל {doctor}?", "צריך ליווי ל{doctor}?"),
        answers=("התור אצל {doctor} ביום {day} ב{hour}", "{doctor} ביטל, מחכים לתור חדש", "אצל {doctor} אמרו שהכול תקין",
                 "עוד לא קבעתי ל{doctor}", "הזיזו את {doctor} ליום {day}"),
        reasons=("המזכירה לא ענתה כל הבוקר", "היו רק שעות מוקדמות", "צריך להביא הפניה", "ההמתנה שם ארוכה מאוד"),
        counters=("ומה עם ההפניה?", "למה דווקא ביום {day}?", "יש שם חניה?", "לא היה משהו קרוב יותר?"),
        follow_ups=("העיקר שיהיה בריא", "אז ארשום ביומן", "אפשר לבוא יחד, זה בדרך"),
    ),
    Topic(
        asks=("מה עם {repair}?", "{repair} עדיין לא עובד?", "הטכנאי בא לתקן את {repair}?", "כמה ביקשו על {repair}?"),
        answers=("{repair} תוקן הבוקר", "הטכנאי של {repair} מגיע ביום {day}", "{repair} עוד מקולקל, חסר חלק",
                 "ביקשו הרבה מאוד על {repair}", "בסוף {repair} הסתדר מעצמו"),
        reasons=("החלק מגיע מחוץ לארץ", "האחריות נגמרה בקיץ", "הוא הסתכל חמש דקות ואמר להחליף", "בינתיים מסתדרים בלי"),
        counters=("מי ממליץ על טכנאי אחר?", "לא עדיף לקנות חדש?", "כמה זמן אפשר לחכות?", "ומי משלם, אנחנו או בעל הבית?"),
        follow_ups=("זה לא נגמר עם הדירה הזאת", "טוב ששאלתי לפני שקניתי", "אז נדבר איתו שוב מחר"),
    ),
    Topic(
        asks=("איך נוסעים ל{city}?", "יש רכבת ל{city} ביום {day}?", "מתי יוצאים ל{city}?", "כמה זמן לוקח עד {city}?"),
        answers=("הרכבת ל{city} יוצאת ב{hour}", "ל{city} עדיף באוטובוס", "יוצאים ל{city} ב{hour}, לא אחרי",
                 "עד {city} זה שעה בלי פקקים", "ביום {day} אין רכבת ל{city}"),
        reasons=("עובדים שם על המסילה", "בשעה הזאת הכביש פקוק", "הכרטיס זול יותר באפליקציה", "התחנה קרובה לבית"),
        counters=("מי אוסף אותנו בתחנה?", "ומתי חוזרים מ{city}?", "לא עדיף ברכב?", "יש מקום לעוד אחד?"),
        follow_ups=("אז נפגשים ברציף", "אקנה כרטיסים הערב", "מצוין, אביא כריכים לדרך"),
    ),
    Topic(
        asks=("מי לוקח את {child} היום?", "איך היה ל{child} בגן?", "{child} כבר אכל משהו?", "מתי נגמר החוג של {child}?"),
        answers=("אני על {child} היום", "ל{child} היה יום נהדר", "{child} לא רצה לאכול כלום",
                 "החוג של {child} נגמר ב{hour}", "סבתא לוקחת את {child} ביום {day}"),
        reasons=("הגננת אמרה שהיה שקט", "יש לי ישיבה עד מאוחר", "היה שם יום הולדת", "צריך להביא בגדים להחלפה"),
        counters=("ומי נשאר בבית?", "מה שמו בתיק של {child}?", "לא היה תורך?", "אולי נלך אחר כך לגן השעשועים?"),
        follow_ups=("אין כמו סבתא", "אז אכין אמבטיה", "מזל שהגן קרוב"),
    ),
    Topic(
        asks=("איך {title}?", "כבר נגמר {title}?", "כדאי לקרוא את {title}?", "ממי קיבלת את {title}?"),
        answers=("{title} פשוט נפלא", "{title} מתחיל לאט ומשתפר", "נעצרתי באמצע {title}",
                 "את {title} קיבלתי מ{friend}", "לא בטוח ש{title} מתאים לחופשה"),
        reasons=("הדמויות חיות ממש", "התרגום קצת כבד", "קראתי עד שתיים בלילה", "יש שם פרק שלם על הים"),
        counters=("ומה הספר הבא ברשימה?", "אפשר להשאיל את {title} אחר כך?", "הסוף טוב?", "זה לא ארוך מדי?"),
        follow_ups=("אז אבקש מהספרייה", "שמרת אותי מקנייה מיותרת", "בחופש אגיע גם אליו"),
    ),
    Topic(
        asks=("מה קורה עם {task}?", "מתי {task} יהיה מוכן?", "מי עובר על {task}?", "אפשר לשלוח כבר את {task}?"),
        answers=("{task} יהיה מוכן ביום {day}", "{friend} עובר עכשיו על {task}", "ב{task} חסרים עוד נתונים",
                 "אפשר לשלוח את {task} ב{hour}", "{task} מחכה לחתימה"),
        reasons=("ההנהלה שינתה את הסעיף האחרון", "היו שתי גרסאות שונות", "הלקוח ביקש עוד פירוט", "הטבלה לא התעדכנה מאתמול"),
        counters=("מי מאשר את {task} בסוף?", "יש דחיפות?", "באיזה פורמט רוצים את {task}?", "כדאי לקבוע ישיבה?"),
        follow_ups=("אעדכן את הלקוח", "אז נסגור את זה ביום {day}", "חשוב שזה יהיה מדויק"),
    ),
    Topic(
        asks=("הולכים ל{sport} ביום {day}?", "איך היה ב{sport}?", "באיזו שעה {sport} מחר?", "התחלת כבר {sport}?"),
        answers=("{sport} מחר ב{hour}", "אחרי {sport} כואב לי הכול", "ביום {day} אין {sport}, המדריכה חולה",
                 "התחלתי {sport} לפני חודש", "מוותר הפעם על {sport}"),
        reasons=("הברך עדיין מציקה", "האוויר בבוקר נהדר", "הקבוצה קטנה ונחמדה", "צריך לחזור לכושר לפני הקיץ"),
        counters=("ומי עוד בא ל{sport}?", "זה לא מוקדם מדי?", "צריך להביא מזרן?", "כמה זה עולה לחודש?"),
        follow_ups=("כל הכבוד על ההתמדה", "אז נפגשים שם", "בשבוע הבא גם אני בפנים"),
    ),
    Topic(
        asks=("מה קונים ל{friend}?", "מתי היום הולדת של {friend}?", "{gift} זו מתנה טובה ל{friend}?", "מי מארגן ל{friend} הפתעה?"),
        answers=("חשבתי על {gift} ל{friend}", "ל{friend} כבר יש {gift}", "היום הולדת של {friend} ביום {day}",
                 "{gift} זה בדיוק מה ש{friend} צריך", "נתחלק כולנו במתנה ל{friend}"),
        reasons=("ראיתי אחד יפה בחלון ראווה", "כל שנה מביאים ספר", "אפשר להחליף אם לא אוהבים", "יש מבצע עד סוף השבוע"),
        counters=("כמה שמים כל אחד?", "ומי מביא עוגה?", "לא הבאנו {gift} בשנה שעברה?", "איפה חוגגים?"),
        follow_ups=("אני בפנים, תגידו כמה", "אז אעבור בחנות", "רק שזה יישאר סוד"),
    ),
    Topic(
        asks=("איפה חנית?", "יש מקום ב{street}?", "האוטו נשאר ב{street}?", "אפשר לחנות ב{street} בערב?"),
        answers=("האוטו ב{street}", "ב{street} הכול תפוס", "מצאתי מקום ב{street} אחרי סיבוב",
                 "ב{street} נותנים דוחות עד {hour}", "השארתי ליד הכניסה, לא ב{street}"),
        reasons=("יש היום שוק ברחוב", "שיפצו את המדרכה", "הפקח עבר כבר פעמיים", "המפתח אצלי בתיק"),
        counters=("עד מתי מותר שם?", "זה רחוק מהבית?", "למה לא לבוא ברגל?", "מי מזיז אותו בבוקר?"),
        follow_ups=("אז ניקח אוטובוס", "תודה, חסכת לי סיבובים", "רק לא לשכוח לשלם"),
    ),
    Topic(
        asks=("קר בחוץ?", "צריך לקחת {garment}?", "מה לובשים הערב?", "ירד אצלכם גשם?"),
        answers=("קפוא, כדאי לקחת {garment}", "אין צורך ב{garment}, השמש יצאה", "{garment} מספיק להיום",
                 "יורד גשם מ{hour}", "חמים עכשיו, אבל בערב צריך {garment}"),
        reasons=("הרוח חזקה מאוד", "בתחזית אמרו שמתבהר", "בחוץ יושבים כולם בחולצות", "החדר שם ממוזג מדי"),
        counters=("ולילדים מה?", "כמה מעלות שם?", "זה מחזיק עד הלילה?", "אין לך {garment} אחר?"),
        follow_ups=("אז אקח מטרייה ליתר ביטחון", "החורף הזה מבולבל", "טוב לדעת, כבר כמעט יצאתי"),
    ),
    Topic(
        asks=("{device} נדלק בסוף?", "מה הבעיה עם {device}?", "איך מאפסים את {device}?", "מי מבין ב{device}?"),
        answers=("{device} עובד אחרי עדכון", "{device} במעבדה עד יום {day}", "מאפסים את {device} בלחיצה ארוכה",
                 "{friend} מבין ב{device}", "{device} גמור, צריך חדש"),
        reasons=("הכבל היה רופף", "הסוללה נפוחה", "נשפך עליו קפה", "ההוראות היו רק באנגלית"),
        counters=("יש גיבוי למה שהיה על {device}?", "כמה עולה תיקון?", "ניסית לנתק מהחשמל?", "הוא באחריות?"),
        follow_ups=("טכנולוגיה זה לא בשבילי", "אז אנסה שוב בערב", "מזל שלא זרקתי"),
    ),
    Topic(
        asks=("מי מוציא את {pet}?", "{pet} אכל היום?", "מה אמר הווטרינר על {pet}?", "איפה {pet} ישן כשנוסעים?"),
        answers=("כבר הוצאתי את {pet}", "{pet} לא נגע באוכל", "הווטרינר אמר ש{pet} בריא לגמרי",
                 "{pet} נשאר אצל {friend}", "{pet} ישן כל היום על הספה"),
        reasons=("הוא פחד מהרעמים", "צריך לקנות שק אוכל", "היה לו חיסון", "הוא נבח על הדוור"),
        counters=("מי נותן את הכדור בערב?", "לא חם מדי לטיול?", "ומה עם {pet} בסוף השבוע?", "למה הוא מגרד?"),
        follow_ups=("אין כמו {pet}", "אז אעבור לבקר", "תנו ליטוף ממני"),
    ),
    Topic(
        asks=("מה חסר בבית?", "נגמר לנו {item}?", "להביא {item} מהמכולת?", "קנית {item}?"),
        answers=("חסר {item} ועוד כמה דברים", "יש {item} במזווה", "קניתי {item} הבוקר",
                 "{item} בבקשה, ושקית קרח", "לא היה {item}, לקחתי משהו דומה"),
        reasons=("מתארחים אצלנו ביום {day}", "המחיר שם עלה שוב", "התור בקופה היה ארוך", "הרשימה על המקרר"),
        counters=("כמה {item} צריך?", "מאיזו חברה?", "יש עוד משהו ברשימה?", "עד מתי פתוח שם?"),
        follow_ups=("רשמתי, אני בדרך", "אז נסתדר עם מה שיש", "אעבור שם בחזור"),
    ),
    Topic(
        asks=("מה שלום {plant}?", "השקית את {plant}?", "למה {plant} נראה ככה?", "איפה לשים את {plant}?"),
        answers=("{plant} פורח יפה", "השקיתי את {plant} אתמול", "ל{plant} יש כנימות",
                 "את {plant} שמים ליד החלון", "{plant} צריך עציץ גדול יותר"),
        reasons=("היו ימים חמים מדי", "האדמה התייבשה לגמרי", "מים פעם בשבוע מספיקים", "במשתלה נתנו דשן"),
        counters=("כמה מים ל{plant}?", "זה עדיין חי?", "מי משקה כשנוסעים?", "לא עדיף בצל?"),
        follow_ups=("אז אביא ייחור", "אצלי הכול מת", "יש לך יד ירוקה"),
    ),
    Topic(
        asks=("מה רוצה {neighbour}?", "{neighbour} שוב עושה רעש?", "דיברת עם {neighbour}?", "מתי האסיפה עם {neighbour}?"),
        answers=("{neighbour} ביקש לסגור את השער", "עם {neighbour} דיברתי, יהיה שקט", "{neighbour} משפץ עד יום {day}",
                 "האסיפה עם {neighbour} ב{hour}", "{neighbour} דווקא הביא עוגה"),
        reasons=("הקידוחים מתחילים בשבע", "המעלית שוב תקועה", "שמו פתק בכניסה", "כולם חתמו על המכתב"),
        counters=("מי עוד התלונן?", "אולי לכתוב ל{neighbour} מכתב?", "וכמה זה יעלה לכל דירה?", "זה חוקי בכלל?"),
        follow_ups=("סבלנות, זה ייגמר", "אז אבוא לאסיפה", "שכנים לא בוחרים"),
    ),
    Topic(
        asks=("איך הולך עם {subject}?", "מתי המבחן ב{subject}?", "יש סיכום ב{subject}?", "מי מלמד {subject} הסמסטר?"),
        answers=("המבחן ב{subject} ביום {day}", "ב{subject} אני עוד בפרק השני", "הסיכום של {friend} ב{subject} מצוין",
                 "{subject} הכי קשה הסמסטר", "דחו את {subject} למועד אחר"),
        reasons=("המרצה מדבר מהר מאוד", "השאלות חוזרות משנה שעברה", "הספרייה פתוחה עד {hour}", "נשארו שלושה שיעורים"),
        counters=("לומדים {subject} יחד?", "מה בחומר?", "מותר להביא דף נוסחאות?", "למי יש הקלטות?"),
        follow_ups=("בהצלחה לכולנו", "אז אני בספרייה", "אשלח מה שיש לי"),
    ),
    Topic(
        asks=("יש כרטיסים ל{show}?", "הולכים ל{show} ביום {day}?", "איך הייתה {show}?", "כמה עולה {show}?"),
        answers=("נשארו מקומות ל{show} ביציע", "{show} הייתה חוויה", "ל{show} הכול אזל",
                 "קניתי לנו {show} ליום {day}", "בשבילי {show} יקר מדי"),
        reasons=("התאורה שם מהממת", "ישבנו רחוק ושמענו הכול", "המכירה נפתחה בבוקר", "הביקורות היו טובות"),
        counters=("מי עוד בא ל{show}?", "איפה אוכלים לפני?", "יש הנחה לסטודנטים?", "מתי נפתחים השערים?"),
        follow_ups=("אני כבר מתרגש", "בפעם הבאה גם אני", "אז נשמע את זה בבית"),
    ),
    Topic(
        asks=("did {colleague} send {file}?", "can we go over {file} today?", "is {file} final?", "who owns {file} now?"),
        answers=("{file} is in your inbox", "we can do {file} at {clock}", "{file} still needs a signature",
                 "i have {file}, two small changes left", "{file} was sent on {weekday}"),
        reasons=("legal had one comment", "the totals did not add up", "the old version was on the drive", "nobody opened it yet"),
        counters=("which version of {file} do you mean?", "does it have to be today?", "who signs it?", "what about the cover page?"),
        follow_ups=("great, that helps", "ok then i will wait", "please keep me posted"),
    ),
    Topic(
        asks=("how do we get to {spot}?", "are you coming to {spot}?", "what time at {spot}?", "who drives to {spot}?"),
        answers=("meet me at {spot} around {clock}", "i can drive to {spot}", "not {spot} again, too crowded",
                 "the bus to {spot} takes an hour", "{spot} works for me on {weekday}"),
        reasons=("parking is a nightmare there", "the weather looks good", "my sister is in town", "we can leave early"),
        counters=("is {spot} even open?", "should i bring food?", "how many are we?", "why not somewhere closer?"),
        follow_ups=("see you there then", "i will pack a towel", "sounds like a plan"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What a person is about to say, as plain clauses without punctuation but for question marks."""

    act: str  # "ask", "answer", "follow_up" or "remark"
    text: str
    reasons: tuple[str, str]  # two that may follow
    counter: str
    partner: str
    moment: datetime
    is_first: bool  # of this person in the conversation

    @property
    def is_question(self) -> bool:
        """Tell a question from all else."""
        return self.text.endswith("?")


Habit = Callable[[Said, random.Random], list[str]]


@dataclass(frozen=True)
class Person:
    """Somebody to imitate: with whom they write, and how."""

    name: str
    chats: tuple[tuple[str, ...], ...]  # the other members of each chat
    habit: Habit
    group_name: str | None = None  # of the only chat, when it has more than two members

    @property
    def partners(self) -> tuple[str, ...]:
        """Everybody else."""
        return tuple(itertools.chain.from_iterable(self.chats))


def _plain(said: Said, rng: random.Random) -> list[str]:
    """Write whole sentences, as the partners do."""
    text = said.text
    if said.act == "answer" and rng.random() < 0.4:
        text += ", " + said.reasons[0]
    return [text if said.is_question else text + rng.choice((".", ".", "!", ""))]


def _write_at_length(said: Said, rng: random.Random) -> list[str]:
    """Write long messages: an opening, the matter, one or two reasons, full stops, no emoji, nothing in parts."""
    if said.text.isascii():
        openings = ("", "", "as far as i know, ", "to be honest, ", "well, ", "as i said before, ")
        links = (", mainly because ", ", bearing in mind that ", ". in the end ", ", even though ")
        thirds, whys = (
            (" besides, ", " what is more, ", " and by the way, "),
            (" i would like to know well in advance.",),
        )
    else:
        openings = ("", "", "למיטב ידיעתי ", "אם לומר את האמת, ", "ובכן, ", "כפי שכבר אמרתי, ")
        links = (", מפני ש", ", ויש לזכור ש", ". בסופו של דבר ", ", אף על פי ש")
        thirds = (" מלבד זאת, ", " יתרה מזו, ", " ואגב, ")
        whys = (" אשמח לדעת מראש, כדי להיערך כראוי.", " השאלה נשאלת מפני שצריך לתכנן את השבוע.")
    text = rng.choice(openings) + said.text
    if said.is_question:
        return [text + rng.choice(whys)]
    text += rng.choice(links) + said.reasons[0] + "."
    if rng.random() < 0.6:
        text += rng.choice(thirds) + said.reasons[1] + "."
    return [text]


def _answer_with_questions(said: Said, rng: random.Random) -> list[str]:
    """Answer a question with a question, and let no other turn end without one."""
    marks = rng.choice(("?", "?", "??"))
    counter = said.counter.rstrip("?") + marks
    if said.act == "answer":
        opening = rng.choice(("", "", "מה פתאום. ", "תלוי, ", "למה שואלים? "))
        return [opening + counter] if rng.random() < 0.75 else [said.text + " אולי?", counter]
    if said.is_question:
        return [said.text.rstrip("?") + marks]
    return [said.text, rng.choice(("נכון?", "לא?", "מה דעתך?"))] if rng.random() < 0.7 else [counter]


def _write_by_register(said: Said, rng: random.Random) -> list[str]:
    """Write formally to Orna, the superior, and in slang to Koby, the friend."""
    if said.partner == "Orna":
        opening = rng.choice(("שלום אורנה, ", "אורנה שלום, ", "בהמשך לשיחתנו, ")) if said.is_first else ""
        body = said.text if said.is_question else said.text + "."
        if said.act == "answer":
            body += f" אציין כי {said.reasons[0]}."
        closing = rng.choice((" בברכה, דניאל", " תודה מראש, דניאל", " לשירותך תמיד"))
        return [opening + body + (closing if rng.random() < 0.6 else "")]
    parts = [rng.choice(("אחי", "וואלה", "גבר", "שומע"))] if rng.random() < 0.5 else []
    text = said.text.rstrip("?")
    if said.is_question:
        text += rng.choice(("??", "???", " או מה"))
    elif rng.random() < 0.4:
        text += text[-1] * 3
    parts.append(text)
    if said.act == "answer" and rng.random() < 0.5:
        parts.append(said.reasons[0])
    if rng.random() < 0.5:
        parts.append(rng.choice(("חחחח", "חחח מת", "😂😂", "🔥", "יאללה ביי")))
    return parts


GREETINGS = ((5, "בוקר טוב", "☀️"), (11, "צהריים טובים", "🍽️"), (15, "אחר צהריים נעימים", "☕"), (18, "ערב טוב", "🌇"),
             (22, "לילה טוב", "🌙"))  # fmt: skip


def _greet_by_the_hour(said: Said, rng: random.Random) -> list[str]:
    """Begin with a greeting that depends on the hour, sign with its emoji, write one short line, end with "!"."""
    _, greeting, emoji = [row for row in GREETINGS if said.moment.hour >= row[0]][-1]
    text = said.text if said.is_question else said.text + "!"
    if rng.random() < 0.3:
        text += f" {emoji}"
    return [f"{greeting} {said.partner}{rng.choice(('!', ' ' + emoji))}", text] if said.is_first else [text]


def _send_voice_notes(said: Said, rng: random.Random) -> list[str]:
    """Send a voice note for every third turn, with a word about it or none; write little, without capitals or stops."""
    if rng.random() < 0.35:
        note = rng.choice(("הקלטתי", "יש הקלטה", "תקשיבו", "עדיף בקול"))
        return [VOICE_NOTE] if rng.random() < 0.4 else [VOICE_NOTE, note + "..."]
    words = said.text.rstrip("?").split(" ")
    tail = rng.choice(("...", "", " אוקיי", " ביי"))
    if said.is_question:
        return [" ".join(words) + rng.choice(("", " ?"))]
    return [" ".join(words) + tail] if rng.random() < 0.7 else [rng.choice(("כן", "לא יודע", "רגע")), " ".join(words)]


def _write_in_the_family(said: Said, rng: random.Random) -> list[str]:
    """Speak to a member by name, agree in a word, and cheer with hearts."""
    text = said.text if said.is_question else said.text + rng.choice((" ❤️", " 🥰", "", "~"))
    if rng.random() < 0.6:
        text = f"{said.partner} {rng.choice(('יקירי', 'נשמה', 'חיים שלי'))}, {text}"
    agreement = rng.choice(("מצטרפת", "גם אני", "מאשרת"))
    return [agreement, text] if said.act == "answer" and rng.random() < 0.4 else [text]


PEOPLE: dict[str, Person] = {
    person.name: person
    for person in (
        Person("Avner", (("Dorit",),), _write_at_length),
        Person("Tamar", (("Eitan",),), _answer_with_questions),
        Person("Daniel", (("Orna",), ("Koby",)), _write_by_register),
        Person("Maya", (("Shlomi",),), _greet_by_the_hour),
        Person("Gil", (("Liron",),), _send_voice_notes),
        Person("Noa", (("Yossi", "Rina", "Adi", "Boaz"),), _write_in_the_family, group_name="המשפחה"),
    )
}


def write_chat(
    person: str,
    num_conversations: int,
    seed: int,
    own_seed: int | None = None,
    is_plain: bool = False,
) -> list[Message]:
    """Return the messages of `num_conversations` conversations of `person`, in the order of time.

    Whoever writes with several partners has several chats. The same arguments give the same messages. With `own_seed` the
    person's own words depend on it and nothing else does: two of them are two draws of replies to the same messages.
    With `is_plain` nobody has a habit.
    """
    who = replace(PEOPLE[person], habit=_plain) if is_plain else PEOPLE[person]
    rng = random.Random(f"{person} {seed}")
    own_rng = rng if own_seed is None else random.Random(f"{person} {seed} {own_seed}")
    messages: list[Message] = []
    for number in range(num_conversations):
        day, part_of_day = divmod(number, len(HOURS))
        start = FIRST_DAY + timedelta(days=day, hours=HOURS[part_of_day], minutes=rng.randint(0, 59))
        messages += _write_conversation(who, rng.choice(who.chats), start, TOPICS, rng, own_rng)
    return messages


def _write_conversation(
    person: Person,
    others: Sequence[str],
    moment: datetime,
    topics: Sequence[Topic],
    rng: random.Random,
    own_rng: random.Random,
) -> list[Message]:
    chat = person.group_name or others[0]
    messages: list[Message] = []
    have_written: set[str] = set()
    for topic in rng.sample(topics, rng.choice((1, 2, 2, 3))):
        slots = {name: rng.choice(values) for name, values in SLOTS.items()}
        other = rng.choice(others)
        pair = (person.name, other) if rng.random() < 0.35 else (other, person.name)
        for speaker, act, frames in (
            (pair[0], "ask", topic.asks),
            (pair[1], "answer", topic.answers),
            (pair[0], "follow_up", topic.follow_ups),
            (pair[1], "remark", topic.reasons),
        ):
            if act == "remark" and rng.random() < 0.4:
                continue
            is_own = speaker == person.name
            words_rng = own_rng if is_own else rng
            frame = words_rng.choice(frames)
            reasons = words_rng.sample([reason for reason in topic.reasons if reason != frame], 2)
            said = Said(
                act=act,
                text=_fill(frame, slots),
                reasons=(_fill(reasons[0], slots), _fill(reasons[1], slots)),
                counter=_fill(words_rng.choice(topic.counters), slots),
                partner=next(name for name in pair if name != speaker),
                moment=moment,
                is_first=speaker not in have_written,
            )
            have_written.add(speaker)
            for text in (person.habit if is_own else _plain)(said, words_rng):
                moment += timedelta(seconds=words_rng.randint(3, 40))
                messages.append(Message(chat, moment, speaker, text))
            moment += timedelta(seconds=rng.randint(20, 200))
    return messages


def _fill(frame: str, slots: dict[str, str]) -> str:
    def join(found: re.Match[str]) -> str:
        preposition, value = found[1], slots[found[2]]
        return preposition + (value.removeprefix("ה") if found[2] in SLOTS_WITH_ARTICLE else value)

    return PREPOSITION_RE.sub(join, frame).format(**slots)


def plain_conversations(num_conversations: int, seed: int, every: int = 1) -> list[dict[str, Any]]:
    """Return records of other people on the same topics, who have no habits: what a base may have read before.

    `every` = 2 leaves out every second sentence of each topic, so that the language is known, but not all that is said.
    """
    topics = [
        replace(
            topic, **{name: getattr(topic, name)[::every] for name in ("asks", "answers", "counters", "follow_ups")}
        )
        for topic in TOPICS
    ]
    rng = random.Random(f"plain {seed}")
    plain = Person("Plain", (("Other",),), _plain)
    start = FIRST_DAY + timedelta(hours=HOURS[0])
    talks = [_write_conversation(plain, ("Other",), start, topics, rng, rng) for _ in range(num_conversations)]
    return [record for talk in talks for record in as_conversations(talk, plain.name)]


def as_conversations(messages: Iterable[Message], person: str) -> list[dict[str, Any]]:
    """Return the records of `formatted_data.jsonl` that stage 1 makes of the chats: voice notes left out, turns joined.

    The keys are `messages`, `chat`, `started_at` and `with` (who else wrote, in order of appearance).
    """
    records = []
    for chat, said in _by_chat(messages):
        is_group = len({message.sender for message in said}) > 2
        words = [message for message in said if message.text != VOICE_NOTE]
        for talk in _split_at_silence(words):
            while talk and talk[-1].sender != person:
                talk.pop()
            if talk:
                others = [message.sender for message in talk if message.sender != person]
                records.append(
                    {
                        "messages": _build_turns(talk, person, is_group),
                        "chat": chat,
                        "started_at": talk[0].sent_at.replace(second=0).isoformat(),
                        "with": list(dict.fromkeys(others)),
                    }
                )
    return records


def _by_chat(messages: Iterable[Message]) -> list[tuple[str, list[Message]]]:
    chats: dict[str, list[Message]] = {}
    for message in messages:
        chats.setdefault(message.chat, []).append(message)
    return list(chats.items())


def _split_at_silence(messages: Sequence[Message]) -> list[list[Message]]:
    talks: list[list[Message]] = []
    for message in messages:
        if not talks or message.sent_at - talks[-1][-1].sent_at > CONVERSATION_GAP:
            talks.append([])
        talks[-1].append(message)
    return talks


def _build_turns(talk: Sequence[Message], person: str, is_group: bool) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    for previous, message in zip([None, *talk], talk, strict=False):
        role, text = ("assistant" if message.sender == person else "user"), message.text
        is_same_burst = (
            previous is not None
            and previous.sender == message.sender
            and _minute(message) - _minute(previous) <= TURN_GAP
        )
        if is_group and role == "user" and not is_same_burst:
            text = f"{message.sender}: {text}"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n" + text
        else:
            turns.append({"role": role, "content": text})
    return turns


def _minute(message: Message) -> datetime:
    return message.sent_at.replace(second=0)


def as_exports(messages: Iterable[Message]) -> dict[str, str]:
    """Return the text of each chat's export under the file name that an Android phone with English settings gives it."""
    return {
        f"WhatsApp Chat with {chat}.txt": "".join(
            f"{message.sent_at:%d/%m/%Y, %H:%M} - {message.sender}: {message.text}\n" for message in said
        )
        for chat, said in _by_chat(messages)
    }


def write_jsonl(path: Path, person: str, num_replies: int, seed: int) -> None:
    """Write to `path` as many whole conversations of `person`, the earliest, as hold about `num_replies` replies."""
    # A conversation has more than two replies on average.
    records = as_conversations(write_chat(person, num_replies // 2 + 10, seed), person)
    records.sort(key=lambda record: record["started_at"])
    replies = itertools.accumulate(
        sum(turn["role"] == "assistant" for turn in record["messages"]) for record in records
    )
    chosen = [record for record, so_far in zip(records, replies, strict=True) if so_far <= num_replies]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in chosen), encoding="utf-8")
