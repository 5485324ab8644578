"""What goes into the store and comes out of it: plain values, no database behind them."""

from dataclasses import dataclass
from datetime import datetime


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
    """A paragraph that was set in a chat. `set_at` is in UTC, `message_id` is the message that set it."""

    id: int
    chat_id: int
    text: str
    author: Author
    message_id: int | None
    set_at: datetime


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
