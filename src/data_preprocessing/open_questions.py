"""Questions that stayed without an answer, as the messages of one chat go by.

A question is answered once somebody whom it was put to says anything that may be an answer, in the same conversation or the
next: what the answer means is not understood. In a group anybody but the asker may answer. Which messages ask and answer is told by
`question_words`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from message_filters import KeptMessage

NUM_SHOWN_SINCE = 3  # of the messages that followed


@dataclass(slots=True)
class OpenQuestion:
    """A question, and the first messages that followed it."""

    message: KeptMessage
    conversation: int  # its number in the chat
    since: list[KeptMessage] = field(default_factory=list)


class OpenQuestions:
    """Collects the unanswered questions of one chat."""

    def __init__(self) -> None:
        """Begin without a question."""
        self._found: list[OpenQuestion] = []
        self._waiting: dict[str, list[OpenQuestion]] = {}  # by asker, oldest first
        self._latest: list[OpenQuestion] = []  # that fewer than NUM_SHOWN_SINCE messages have followed
        self._conversation = 0

    def begin_conversation(self) -> None:
        """Give up waiting for answers to the questions of the conversation before the last."""
        self._conversation += 1
        self._latest = [question for question in self._latest if question.conversation >= self._conversation - 1]
        for asker, questions in list(self._waiting.items()):
            num_over = 0
            while num_over < len(questions) and questions[num_over].conversation < self._conversation - 1:
                num_over += 1
            self._found += questions[:num_over]
            self._waiting[asker] = questions[num_over:]
            if not self._waiting[asker]:
                del self._waiting[asker]

    def add(self, asker: str, message: KeptMessage, is_question: bool, is_answer: bool) -> None:
        """Take the next message, by `asker`; `is_answer`: it may answer what anybody else asked."""
        if self._waiting:
            if is_answer:
                self._waiting = {other: questions for other, questions in self._waiting.items() if other == asker}
            for question in self._latest:
                question.since.append(message)
            self._latest = [question for question in self._latest if len(question.since) < NUM_SHOWN_SINCE]
        if is_question:
            question = OpenQuestion(message, self._conversation)
            self._waiting.setdefault(asker, []).append(question)
            self._latest.append(question)

    def withdraw(self, asker: str) -> None:
        """Forget the questions of `asker`, who said that they are settled."""
        self._waiting.pop(asker, None)

    def has_asked(self, person: str) -> bool:
        """Tell whether a question of `person` waits for an answer."""
        return person in self._waiting

    def is_waiting(self) -> bool:
        """Tell whether any question waits for an answer."""
        return bool(self._waiting)

    def may_answer(self, person: str) -> bool:
        """Tell whether a question of anybody but `person` waits for an answer."""
        return len(self._waiting) > (person in self._waiting)

    def finish(self) -> list[OpenQuestion]:
        """Return all unanswered questions, oldest first."""
        for questions in self._waiting.values():
            self._found += questions
        self._waiting = {}
        return sorted(self._found, key=lambda question: question.message.sent_at)
