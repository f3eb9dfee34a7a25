"""Is a message a question that waits for an answer, and may another one be its answer? Decided by Hebrew and English words.

Questions that keep a talk going ("what's up?", "really?") wait for nothing; laughter, a greeting, "I'll check" or a short
question back answer nothing. Who asks whom is left to `open_questions`.
"""

from __future__ import annotations

import re

from wording import Wording

MAX_SHORT_WORDS = 3  # of a question back; a longer one says something as well
MAX_DEFERRING_WORDS = 9  # "I'll check and tell you" is short; what is longer answers something, too


def _phrases(*lines: str) -> frozenset[str]:
    return frozenset(phrase for line in lines for phrase in line.split("|"))


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


OPENERS = _phrases(  # before the words that count
    "נו|אז|טוב|היי|הי|שלום|אהלן|אחי|אחותי|מאמי|גבר|נשמה|תגיד|תגידי|תגידו|תקשיב|תקשיבי|שמע|שמעי|אגב|וואי|וואו|יואו|אוי|אה|רגע|אבל|כאילו|בקיצור|סתם|סליחה|אממ|המ|ואז",
    "hey|hi|hello|so|and|well|yo|bro|dude|man|babe|omg|lol|wait|btw|ok|okay|oh|hmm|um|sorry|but|like|also|haha|hahaha|wow",
)
CLOSERS = OPENERS | _phrases(
    "איתך|אתך|אצלך|היום|שם|עכשיו|בכלל|כבר|באמת|בסדר|כולם|לכולם|everyone|everybody|folks|today|now|then|again|guys|all|there|anyway|please|בבקשה"
)
# "nice weather, right?"
TAGS = _words("אה הא נכון לא כן מה right huh no eh innit yeah lol")
TAG_RE = re.compile(rf"\S[\s,]+(?:{'|'.join(TAGS)})$")

NO_QUESTIONS = _phrases(  # whole
    "מה|מה נשמע|מה קורה|מה המצב|מה מצב|מה העניינים|מה עניינים|מה שלומך|מה שלומכם|מה חדש|מה הולך|מה הקטע|מה נסגר|מה הקשר|מה פתאום|מה זה|מזה|מזתומרת|מה זאת אומרת",
    "מה זה משנה|למי אכפת|למי איכפת|מה יש|מה יש לומר|מה לעשות|מה אני אעשה|מה נעשה|מה נהיה|מה יהיה|מה כבר|מה אכפת לי|מה אכפת לך|מה לא|מה כן|מה אתה אומר|מה את אומרת|מה אני אגיד לך|מה אני אגיד|מה אפשר לומר|למה מה",
    "איך|איך אתה|איך את|איך הולך|איך זה הולך|איך היה|איך היה היום|הכל בסדר|הכול בסדר|הכל טוב|הכול טוב|אוקיי|אוקי|סבבה|נכון|באמת|ברצינות|אה|הא|איזה|כן|לא|למה|למה לא|ולמה|מי|ומה|איפה|מתי|אז מה",
    "הבנת|הבנתם|ברור|אתה רציני|את רצינית|רציני|אתה אמיתי|את אמיתית|אתה נורמלי|את נורמלית|נורמלי|אתה צוחק|את צוחקת|אתה צוחק עליי|אתה קולט|את קולטת|קולט|קולטת|אתה מבין|את מבינה|מבין|מבינה|אתה מאמין|את מאמינה|פסיכי",
    "אתה יודע מה|את יודעת מה|יודע מה|יודעת מה|יודעים מה|מי כמוך|לאן הגענו|מי היה מאמין|מי צריך|עד מתי|כמה אפשר|בסדר|טוב|ראית את זה|ראיתם את זה|ראית מה זה|שמעת את זה|לא ככה|לא כך|איך לא|מה הסיכוי|מה הסיכויים",
    "what|what's up|whats up|what up|what's new|whats new|sup|wassup|how are you|how are u|how r u|how are things|how are you doing|how you doing|how's it going|hows it going|how's life|how was your day|how was it|how have you been",
    "you ok|you okay|you good|are you ok|really|rly|seriously|right|huh|no|yes|yeah|sure|eh|innit|so what|and then|for real|fr|wtf|how|when|who|where|why|why not|why me|is it|oh really|since when|says who|who knows|who cares",
    "you serious|you kidding|you know what|do you know what|u know what|guess what|guess who|you know|you know what i mean|what can i say|what can you do|what else is new|what else|what are the odds|what are the chances|where did the time go|did you see that|did u see that|see|who does that|who does this|get it|got it|makes sense",
)
NO_QUESTION_STARTS = tuple(
    _phrases(
        "מי יודע|מי אני ש|נכון ש|ראית מה |ראיתם מה |ראית איזה |מי אמר ש|מי לא |מי אם לא|נחש |נחשי |נחשו |אתה קולט ש|את קולטת ש|אתם קולטים|אתה מאמין ש|את מאמינה ש|אתם מאמינים|אתה מבין ש|את מבינה ש|קולט ש|קולטת ש|את רצינית ש|אתה רציני ש|אתה נורמלי ש|אתה צוחק|את צוחקת",
        "למה אני תמיד|למה תמיד|למה זה תמיד|למה דווקא אני|איך אפשר שלא|איך אפשר לא|זה לא |איזה לא|לא חבל|לא מדהים|לא יפה |כמה אפשר|מתי כבר |איפה הימים|איפה היינו|מה אני אמור|מה אני אמורה|מה כבר |מה הסיכוי|מה את רוצה ממני|מה אתה רוצה ממני|מה זה השטויות|מה קשור|מה נראה לך|מה נראה לך ש",
        "who knows|who would have|who wouldn't|who doesn't|who needs|who even|guess what|guess who|can you believe|can you imagine|could you imagine|are you serious|are you kidding|are you crazy|are you insane|are you joking|isn't it|isn't that|isn't this|isn't she|isn't he|aren't |how cool|how cute|how crazy|how amazing|how funny|how weird|how hard can|how great|how nice|how is this even|how is that even",
        "why am i like|why is it always|why does this always|why do i always|why do i even|what's not to|what is not to|what am i supposed|where has the time|what the |what else can|did you know that|did you know |do you even|who am i to|what do i know|you know what",
    )
)
# Messages that begin so ask without a mark as well; not those that go on like "when you ...".
ASKING_RE = re.compile(
    r"""
      (?:מתי|איפה|מאיפה|לאן|האם|אפשר)\ (?!ש(?!מת|מנו|כחת|לחת|אלת)|כבר|לחשוב|להגיד|לומר)\S
    | באיז[הו]\ \S
    | כמה\ אני\ (?:חייבת?|צריכה?)\b | בא\ ל(?:ך|כם)\ \S | (?:רוצה|רוצים)\ שא\S
    | מישה[וי]\ (?:יודעת?|מכירה?|יכולה?)\b | (?:ראית|קיבלת|הספקת|בדקת)\ \S | דיברת\ עם\b
    | כמה\ (?:עולה|עלה|זה\ (?:עולה|עלה|יעלה)|זמן|אנשים|כסף|אתה|את|אתם)\b
    | מה\ (?:השעה|הכתובת|המספר|הסיסמה|הקוד|התוכניות|לקנות|להביא|(?:אתה|את|אתם)\ (?:עושה|עושים|רוצה|רוצים|צריך|צריכה|צריכים|חושב|חושבת))\b
    | (?:תוכלי?|תוכלו|יש\ ל(?:ך|כם))\ (?!מזל|על\ מה)\S
    | (?:אתה|את|אתם)\ (?:בא|באה|באים|מגיע|מגיעה|מגיעים|פנוי|פנויה|פנויים|יכול|יכולה|יכולים|זוכר|זוכרת|יודע|יודעת|צריך|צריכה)\b(?!\ ש)
    | (?:when|where|what\ time|which\ \w+|how\ (?:much|many|long))\ (?:is|are|do|does|did|will|would|should|can|was|were)\b
    | what\ time\ (?:you|u)\ \w | (?:when|where)\ (?:r\ )?u\ \w+ing\b | (?:r\ )?u\ (?:coming|going|free|around|there|home|awake|up)\b(?!\ for)
    | (?:can|could|would|will|do|did|are|have)\ (?:you|u)\ \w | (?:can|could|may|should)\ (?:i|we)\ \w
    """,
    re.VERBOSE,
)
QUOTED_RE = re.compile(r'(?<!\w)"[^"\n]{1,200}"(?!\w)')
SENTENCE_RE = re.compile(r"[^\n.!?؟…;]+(?:[.…;]+|[!?؟]+)?")

WITHDRAWALS_RE = re.compile(
    r"""(?<!\w)(?:עזוב|עזבי|עזבו|לא\ משנה(?:\ כבר)?|לא\ חשוב|כבר\ לא\ (?:צריך|צריכה|משנה|רלוונטי)|לא\ צריך\ כבר|לא\ רלוונטי|תשכחי?\ מזה
    |(?:כבר\ )?(?:מצאתי|הסתדרתי)|הסתדר\ לי|never\ ?mind|nvm|^nm\b|forget\ (?:it|about\ it)|found\ (?:it|them)|figured\ it\ out|sorted(?:\ it)?|no\ longer\ need
    |don'?t\ need\ it\ anymore|solved\ it)(?!\w)""",
    re.VERBOSE,
)
# Possessive: a long run of the same letter is read once.
LAUGHTER_RE = re.compile(
    r"(?:[\s.,!?~)(:;'-]|ח{2,}+ה*+|ה?חח++|(?:ha|he){2,}+h?|lo+l++|lmao+|rofl|[🤣😂😅😆😄😹💀😭😜😝🙈🏻-🏿\ufe0f])++"
)
GREETINGS = _phrases(
    "בוקר טוב|בוקר אור|צהריים טובים|ערב טוב|לילה טוב|שבת שלום|שבוע טוב|היי|הי|אהלן|שלום|חג שמח|מזל טוב|מה נשמע|מה קורה|מה המצב|אחי|אחותי|מאמי",
    "good morning|good night|good evening|good afternoon|morning|gm|gn|hey|hi|hello|what's up|sup|happy birthday|bro|dude|man",
)
DEFERRING_OPENERS = OPENERS | _phrases(
    "שנייה|שניה|דקה|שאלה טובה|וואלה|אין לי מושג|לא יודע|לא יודעת|לא בטוח|לא בטוחה|לא זוכר|לא זוכרת|אני|כרגע|עוד לא יודע|עוד לא יודעת|תן לי|תני לי|תנו לי|עדיין לא|עוד לא",
    "one sec|one second|hold on|not sure|no idea|i don't know|idk|dunno|good question|i'm|im|not yet|let me|lemme|maybe|sec",
)
DEFERRALS = tuple(
    _phrases(
        'אבדוק|בודק|בודקת|לבדוק|אברר|מברר|מבררת|אשאל|שואל אות|שואלת אות|לחשוב|אחשוב|חושב על זה|חושבת על זה|אענה|אעדכן|אגיד לך|אחזור אליך|אחזור אלייך|אחזור לכם|חוזר אליך|חוזרת אליך|אדבר איתך|נדבר אחר|נדבר בערב|נדבר על זה|נדבר מחר|עסוק|עסוקה|בנהיגה|נוהג|נוהגת|בישיבה|בפגישה|בשיעור|בעבודה|תכף|תיכף|עוד מעט|אחר כך|אח"כ|מאוחר יותר|נראה|נחיה ונראה|אסתכל|אחפש|מחפש',
        "check|checking|i'll check|will check|see|i'll see|i'll ask|ask |think|i'll think|look|i'll look|i'll find out|i'll let you know|i'll let u know|will let you know|let you know|i'll get back|get back|i'll tell you later|busy|driving|in a meeting|in class|on a call|in a call|later|brb|ttyl|talk later|text you later|call you later|give me a|we'll see",
    )
)
STARTS_OF_OPENERS = {opener.split()[0] for opener in OPENERS | DEFERRING_OPENERS if " " in opener}
LAUGHTER_BEGINS = "חהhlr" + "🤣😂😅😆😄😹💀😭😜😝🙈"
# Alone they say that one was read, or that one waits: neither question nor answer.
WAITING = _phrases(
    "רגע|שנייה|שניה|דקה|דק|שאלה טובה|אממ|המ|וואלה|לא יודע|לא יודעת|עוד לא יודע|עוד לא יודעת|אין לי מושג|one sec|sec|wait|hold on|hmm|good question|idk|no idea|not sure|i don't know|dunno|not sure yet"
)


# With one of these begins what may be a question without its mark, perhaps behind openers.
ASKING_WORDS = _words(
    "מתי איפה מאיפה לאן האם אפשר באיזה באיזו כמה מה תוכל תוכלי תוכלו יש אתה את אתם בא רוצה רוצים מישהו מישהי ראית",
    "קיבלת הספקת בדקת דיברת when where what which how can u r",
    "could would will do did are have may should",
)
FIRST_OF_OPENERS = {opener.split()[0] for opener in OPENERS}


def is_question(wording: Wording) -> bool:
    """Tell whether a message asks something that waits for an answer.

    >>> from wording import wording_of
    >>> [is_question(wording_of(text)) for text in ("איפה המפתחות?", "מה נשמע?", "nice, right?", "where are you")]
    [True, False, False, True]
    """
    plain = wording.plain.strip()
    if "?" not in plain and "؟" not in plain:
        first = plain.partition(" ")[0].strip(",.!")
        if first in FIRST_OF_OPENERS:
            core = _core(plain)
        elif first in ASKING_WORDS:
            core = plain
        else:
            return False
        return ASKING_RE.match(core) is not None and not _is_no_question(plain)
    return any(
        ("?" in match[0] or "؟" in match[0])
        and not _is_no_question(match[0])
        and TAG_RE.search(_bare(match[0])) is None
        for match in SENTENCE_RE.finditer(QUOTED_RE.sub("", plain))
    )


def is_answer(wording: Wording) -> bool:
    """Tell whether a message after a question may be its answer.

    >>> from wording import wording_of
    >>> [is_answer(wording_of(text)) for text in ("כן", "😂😂", "רגע אבדוק", "which one?")]
    [True, False, False, False]
    """
    plain = wording.plain.strip()
    if LAUGHTER_RE.fullmatch(plain):
        return False
    if len(plain.split()) > MAX_DEFERRING_WORDS:
        return True
    if is_short_question(plain):
        return False
    core = _core(plain, OPENERS)
    if not core or core in WAITING or core in GREETINGS or _bare(plain) in GREETINGS:
        return False
    return not _core(plain, DEFERRING_OPENERS).startswith(DEFERRALS)


def is_short_question(text: str) -> bool:
    """Tell whether a message only asks back.

    >>> is_short_question("which one?"), is_short_question("which one do you mean?")
    (True, False)
    """
    return "?" in text[-3:] and len(text.split()) <= MAX_SHORT_WORDS


def is_withdrawal(wording: Wording) -> bool:
    """Tell whether the asker says that the question is settled.

    >>> from wording import wording_of
    >>> is_withdrawal(wording_of("עזוב, מצאתי")), is_withdrawal(wording_of("I left it there"))
    (True, False)
    """
    return WITHDRAWALS_RE.search(wording.plain) is not None


def _is_no_question(sentence: str) -> bool:
    core = _core(sentence)
    forms = {_bare(sentence), core, _without_closers(core), _without_closers(_bare(sentence))}
    return not core or not NO_QUESTIONS.isdisjoint(forms) or core.startswith(NO_QUESTION_STARTS)


def _bare(sentence: str) -> str:
    """Return the words of a sentence without the marks around them."""
    return sentence.strip().strip("?!؟.…,;:-~*_() \n🙂😂🤣😅❤️😊🙏")


def _core(sentence: str, openers: frozenset[str] = OPENERS) -> str:
    """Return a sentence without the words at its beginning that add nothing."""
    words = _bare(sentence).split()
    first = 0
    while first < len(words):
        word = words[first].strip(",.!")
        if word in openers or (word[:1] in LAUGHTER_BEGINS and LAUGHTER_RE.fullmatch(word)):
            first += 1
        elif word in STARTS_OF_OPENERS:
            lengths = (
                number for number in (4, 3, 2) if " ".join(words[first : first + number]).strip(",.!") in openers
            )
            num_words = next(lengths, 0)
            if not num_words:
                break
            first += num_words
        else:
            break
    return " ".join(words[first:])


def _without_closers(core: str) -> str:
    words = core.split()
    while len(words) > 1 and words[-1].strip(",.!") in CLOSERS:
        words.pop()
    return " ".join(words).strip(",.!")
