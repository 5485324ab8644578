"""What goes into the store and comes out of it: plain values, no database behind them."""

from bisect import bisect_right
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
class Cleared:
    """How much `Store.clear` deleted."""

    contexts: int
    questions: int
