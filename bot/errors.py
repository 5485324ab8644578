"""Everything that the bot reports as wrong, as one family.

    DuwenError                      qa_engine.errors
    └── BotError
        ├── SettingsError           an environment variable, or a line of .env, cannot be used
        ├── DocumentRefused         a file that no text can be taken from; `reason` says why
        └── StoreError              the database refused a query
            ├── ContextTooLong      appending would make the paragraph longer than is allowed
            ├── DatabaseUnreachable no server, no permission, no room: nothing is wrong with the query
            └── DatabaseNewer       a later version of this program has changed the tables

Each message says what was wrong, what was expected and what to do, for the operator who reads the log. What a
chat gets to see is worded in bot/texts. No message holds the bot's token or the database's password.
"""

from enum import Enum

from qa_engine.errors import DuwenError


class BotError(DuwenError):
    """Any failure that the bot itself reports."""


class SettingsError(BotError):
    """Settings that cannot be used; the message names every one of them, one a line."""


class Unreadable(Enum):
    """Why no text can be taken from a file; the value says it to the operator."""

    TOO_LARGE = "it has more bytes than are allowed"
    TOO_MANY_PAGES = "it has more pages than are allowed"
    TOO_LONG = "it has more characters than are allowed"
    TOO_SLOW = "reading it took too long"
    TOO_DEMANDING = "reading it takes more memory than is allowed"
    ENCRYPTED = "it is locked with a password"
    SCANNED = "its pages hold no text, only pictures"
    NO_WORDS = "there is no word in it"
    BROKEN = "it is broken"
    OLD_WORD = "it is in the format of Word before 2007"
    OTHER_FORMAT = "it is neither text nor PDF nor .docx"
    NOT_DELIVERED = "Telegram did not deliver it"


class DocumentRefused(BotError):
    """A file that no text can be taken from: `found` of something, where `limit` is allowed (0: not known)."""

    def __init__(self, reason: Unreadable, *, found: int = 0, limit: int = 0) -> None:
        super().__init__(f"This file cannot be read: {reason.value}.")
        self.reason = reason
        self.found = found
        self.limit = limit


class StoreError(BotError):
    """The database answered, and refused."""


class ContextTooLong(StoreError):
    """The paragraph would be `chars` long, where `max_chars` are allowed (both in characters)."""

    def __init__(self, chars: int, max_chars: int) -> None:
        super().__init__(f"The paragraph would have {chars} characters; at most {max_chars} are allowed.")
        self.chars = chars
        self.max_chars = max_chars


class DatabaseUnreachable(StoreError):
    """The database cannot be reached, opened or written."""


class DatabaseNewer(StoreError):
    """The database stands at revision `found`; the newest one that this program knows is `known`."""

    def __init__(self, found: str, known: str) -> None:
        super().__init__(
            f"The database is at revision {found}, which this program does not know; its newest is {known}. "
            "A later version has migrated it: install that version again, or restore a backup from before."
        )
        self.found = found
        self.known = known
