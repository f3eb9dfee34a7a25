"""One chat's messages -> its open questions, promises, dated plans and figures, in one pass.

Messages are streamed; kept are those alone that the digest shows. What the words mean is decided by `question_words`,
`promise_words` and `message_dates`; writing is left to `digest_pages` and `plan_calendar`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from conversations import LONGEST_DELAY
from message_dates import DatedPhrase, find_dates
from message_filters import KeptMessage, filter_text
from open_questions import OpenQuestion, OpenQuestions
from participants import readable_name
from period_figures import MAX_LISTED, PeriodFigures
from preprocessing_options import CONVERSATION_GAP_SECONDS
from promise_words import acts_done, acts_shown, find_promise
from promises import Promise, Promises
from question_words import is_answer, is_question, is_short_question, is_withdrawal
from text_facts import TextFacts
from whatsapp_export import Message
from wording import Wording, wording_of

ME = "me"
# Each rule reads many messages in a row: in turn, message by message, they take a fifth more time.
BATCH_MESSAGES = 500
BATCH_CHARS = 1_000_000
# Messages without words that say something all the same: a picture may be the answer, a deleted message tells nothing.
ANSWERING_KINDS = frozenset({"media", "contact", "call", "location", "poll", "link", "code"})
GAP = timedelta(seconds=CONVERSATION_GAP_SECONDS)
NO_SILENCE = timedelta()
MARKS_ALONE_RE = re.compile(r"[?؟!\s]+")

SentText = tuple[datetime, str, str]  # when, by which sender, and the text as exported
WordsSay = tuple[Wording, bool, str | None, list[DatedPhrase]]  # its words, whether it asks, what it promises, its days


class Plan(NamedTuple):
    """A message, and a day ahead that it names."""

    message: KeptMessage
    phrase: DatedPhrase

    def is_ahead(self, end: datetime) -> bool:
        """Tell whether its day, with its hour if it has one, lies after `end`; a day without an hour may be that of `end`."""
        _, day, at = self.phrase
        if day is None:
            return False
        return day >= end.date() if at is None else datetime.combine(day, at) > end


@dataclass
class ChatDigest:
    """What is open, promised and planned in one chat."""

    title: str
    questions_to_me: list[OpenQuestion] = field(default_factory=list)
    questions_of_mine: list[OpenQuestion] = field(default_factory=list)
    promises_of_mine: list[Promise] = field(default_factory=list)
    promises_of_others: list[Promise] = field(default_factory=list)
    plans_ahead: list[Plan] = field(default_factory=list)
    plans_past: deque[Plan] = field(default_factory=lambda: deque(maxlen=MAX_LISTED))
    plans_not_certain: deque[Plan] = field(default_factory=lambda: deque(maxlen=MAX_LISTED))
    figures: PeriodFigures = field(default_factory=PeriodFigures)


@dataclass(frozen=True)
class Circle:
    """Who writes in a chat: which senders are me, and how the others are called."""

    me: Collection[str]
    others: Collection[str]

    @property
    def is_group(self) -> bool:
        """Tell whether more than one other person writes."""
        return len({readable_name(sender) for sender in self.others}) > 1

    def people(self) -> dict[str, str]:
        """Return the person behind each sender."""
        return dict.fromkeys(self.me, ME) | {sender: readable_name(sender) for sender in self.others}

    def first_names(self) -> set[str]:
        """Return how people are called, in lower case."""
        return {name.split()[0].casefold() for name in map(readable_name, [*self.me, *self.others]) if name}

    def addressed(self) -> re.Pattern[str] | None:
        """Return what a message to another member alone begins with: their first name, or `@` and the name."""
        names = {
            re.escape(readable_name(sender).split()[0].casefold()) for sender in self.others if readable_name(sender)
        }
        return re.compile(rf"@?(?:{'|'.join(sorted(names))})(?=[\s,?!:]|$)", re.IGNORECASE) if names else None


def digest_chat(
    title: str,
    messages: Iterable[tuple[Message, bool]],
    circle: Circle,
    facts: TextFacts,
    is_day_first: bool = True,
    since: datetime = datetime.min,
    end: datetime = datetime.max,
) -> ChatDigest:
    """Return the digest of one chat from (message, whether it is a duplicate), from `since` on.

    `end`: when the exports end; plans after it lie ahead.
    """
    reader = _Reader(ChatDigest(title), circle, end)
    people = circle.people()
    new = tuple.__new__  # takes half the time of KeptMessage(...)
    previous_at: datetime | None = None
    for batch in _batches(messages, people, since):
        filtered = [filter_text(text, sender, facts) for _, sender, text in batch]
        said = _read_words(batch, [words for words, _ in filtered], is_day_first)
        for (sent_at, sender, text), (words, reason), words_say in zip(batch, filtered, said, strict=True):
            person = people[sender]
            message = new(KeptMessage, (sent_at, sender, words if words is not None else text))
            silence = sent_at - previous_at if previous_at is not None else NO_SILENCE
            if LONGEST_DELAY <= silence < NO_SILENCE:  # it arrived late
                silence = NO_SILENCE
            else:
                previous_at = sent_at
            reader.figures.add(person, message, text, words, reason, silence)
            if not NO_SILENCE <= silence <= GAP:
                reader.begin_conversation(sent_at)
            if words is None:
                reader.take_without_words(person, message, reason or "")
            else:
                reader.take(person, message, words_say)
    return reader.finish()


def _batches(
    messages: Iterable[tuple[Message, bool]], people: Collection[str], since: datetime
) -> Iterator[list[SentText]]:
    """Yield the messages of `people` that are no duplicates, many in a row."""
    batch: list[SentText] = []
    num_chars = 0
    for (sent_at, sender, text), is_duplicate in messages:
        if is_duplicate or sender is None or sender not in people or sent_at < since:
            continue
        batch.append((sent_at, sender, text))
        num_chars += len(text)
        if len(batch) == BATCH_MESSAGES or num_chars > BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    yield batch


def _read_words(batch: list[SentText], words_of_messages: list[str | None], is_day_first: bool) -> Iterator[WordsSay]:
    """Return what the words of each message say, whatever was said before; a message may have none."""
    wordings = [wording_of(words or "") for words in words_of_messages]
    return zip(
        wordings,
        [is_question(wording) for wording in wordings],
        [find_promise(wording) for wording in wordings],
        [find_dates(wording, sent_at, is_day_first) for wording, (sent_at, _, _) in zip(wordings, batch, strict=True)],
        strict=True,
    )


class _Reader:
    """Takes the messages of one chat, one after the other."""

    def __init__(self, digest: ChatDigest, circle: Circle, end: datetime) -> None:
        self.figures = digest.figures
        self._digest = digest
        self._circle = circle
        self._end = end
        self._questions = OpenQuestions()
        self._promises = Promises()
        self._first_names = circle.first_names()
        self._addresses_other_re = circle.addressed() if circle.is_group else None
        self._previous: tuple[str, KeptMessage] | None = None  # person and message of this conversation

    def begin_conversation(self, now: datetime) -> None:
        self._promises.forget_before(now)
        self._questions.begin_conversation()
        self._previous = None

    def take_without_words(self, person: str, message: KeptMessage, reason: str) -> None:
        """Take a message that stage 1 leaves out for `reason`."""
        if self._promises.open_acts(person):
            self._promises.keep(person, message, acts_shown(reason), is_said=False)
        if self._questions.is_waiting() and reason in ANSWERING_KINDS:
            self._questions.add(person, message, is_question=False, is_answer=True)

    def take(self, person: str, message: KeptMessage, words_say: WordsSay) -> None:
        """Take a message with words."""
        wording, asks, promised_act, phrases = words_say
        promised = self._promises.open_acts(person)
        if promised:
            acts = acts_done(wording, promised)
            if acts:
                self._promises.keep(person, message, acts, is_said=True)
        if "?" in wording.text and MARKS_ALONE_RE.fullmatch(wording.text):
            self._take_marks_alone(person)
            return
        if asks or self._questions.is_waiting():
            self._take_question_or_answer(person, message, wording, asks)
        if promised_act is not None:
            self._promises.add(person, message, promised_act)
        for phrase in phrases:
            self._add_plan(Plan(message, phrase))
        self._previous = person, message

    def _take_marks_alone(self, person: str) -> None:
        """Take "?", which makes a question of the same person's message before it ("are you home")."""
        if self._previous is None or self._questions.has_asked(person):
            return
        asker, message = self._previous
        if asker == person and "?" not in message.text:
            self._questions.add(person, message, is_question=True, is_answer=False)

    def _take_question_or_answer(self, person: str, message: KeptMessage, wording: Wording, asks: bool) -> None:
        questions = self._questions
        if questions.has_asked(person) and is_withdrawal(wording):
            questions.withdraw(person)
        asks = asks and self._is_to_me_or_mine(person, wording.text)
        if questions.is_waiting():
            if asks and is_short_question(wording.text):
                asks = False  # it asks back, or asks once more
            questions.add(person, message, asks, is_answer=questions.may_answer(person) and is_answer(wording))
        elif asks:
            questions.add(person, message, is_question=True, is_answer=False)

    def _is_to_me_or_mine(self, person: str, text: str) -> bool:
        """Tell whether a question is mine, or not put to another member of the group alone; a name alone is none."""
        if text.strip("?! ").casefold() in self._first_names:
            return False
        return person == ME or self._addresses_other_re is None or self._addresses_other_re.match(text) is None

    def _add_plan(self, plan: Plan) -> None:
        if plan.phrase.day is None:
            self._digest.plans_not_certain.append(plan)
        elif plan.is_ahead(self._end):
            self._digest.plans_ahead.append(plan)
        else:
            self._digest.plans_past.append(plan)

    def finish(self) -> ChatDigest:
        """Return the digest, after the last message."""
        digest, me = self._digest, self._circle.me
        for question in self._questions.finish():
            is_mine = question.message.sender in me
            (digest.questions_of_mine if is_mine else digest.questions_to_me).append(question)
        for promise in self._promises.found:
            is_mine = promise.message.sender in me
            (digest.promises_of_mine if is_mine else digest.promises_of_others).append(promise)
        return digest
