"""What goes into the store and comes out of it: plain values, no database behind them."""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True)
class Chat:
    """A Telegram chat; `kind` is Telegram's type: `private`, `group`, `supergroup` or `channel`."""

    id: int
    kind: str
    title: str | None = None


@dataclass(frozen=True)
class Author:
    """Who sent a message: the id and the displayed name of a user, or of the chat that someone speaks for."""

    id: int
    name: str


@dataclass(frozen=True)
class Context:
    """A paragraph that was set in a chat. `set_at` is in UTC, `message_id` is the message that set it.

    `topic_id` is 0 outside of topics. `source` is "message" or a kind of file; `page_starts` has the offset of
    each page's first character, and is empty where there are no pages. `parts` messages were joined into it.
    """

    id: int
    chat_id: int
    text: str
    author: Author
    message_id: int | None
    set_at: datetime
    topic_id: int = 0
    title: str | None = None
    source: str = "message"
    page_starts: tuple[int, ...] = ()
    parts: int = 1
    confirmation_id: int | None = None

    def page_at(self, offset: int) -> int | None:
        """The number, from 1, of the page that the character at `offset` is on; None where there are no pages."""
        return max(1, bisect_right(self.page_starts, offset)) if self.page_starts else None


@dataclass(frozen=True)
class Listed:
    """A context in a chat's list: its title or, where it has none, its beginning; its length in characters."""

    id: int
    title: str
    chars: int
    set_at: datetime
    is_current: bool


@dataclass(frozen=True)
class Standing:
    """What is known of a user and a chat before anything is done for them.

    `language` was chosen with /language; None for whatever their Telegram speaks. The bot was removed from the
    chat at `left_at`, in UTC, and has not been seen in it since.
    """

    language: str | None = None
    left_at: datetime | None = None


@dataclass(frozen=True)
class Cleared:
    """How much `Store.clear` deleted."""

    contexts: int
    questions: int


@dataclass(frozen=True)
class Candidate:
    """A span of a context that may be the answer, in characters; `score` is its probability."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Question:
    """A question that was asked, its context, and what the reader found, best first.

    `is_answered` is false where the reader held that the text does not say: the candidates are guesses then.
    """

    id: int
    context: Context
    text: str
    is_answered: bool
    candidates: tuple[Candidate, ...]


class Verdict(StrEnum):
    """What a user says of the answer that was given."""

    RIGHT = "right"
    WRONG = "wrong"
    ABSENT = "absent"  # the text does not say


@dataclass(frozen=True)
class Correction:
    """The right answer, in the user's words; `start` and `end` are None where these do not stand in the context."""

    text: str
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Judgement:
    """One user's verdict on one question, with all that an example is made of.

    `given` is where the answer stood that was given, `span` where the one stands that this user holds for right; None
    where there is none, or, for `span` and a WRONG answer, none is known.
    """

    context: str
    question: str
    user_id: int
    verdict: Verdict
    given: tuple[int, int] | None
    span: tuple[int, int] | None
    at: datetime


@dataclass(frozen=True)
class Forgotten:
    """How much `Store.forget` deleted."""

    contexts: int
    questions: int
    verdicts: int
