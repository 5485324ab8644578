"""Everything that the bot reports as wrong, as one family.

    DuwenError                      qa_engine.errors
    └── BotError
        ├── SettingsError           an environment variable, or a line of .env, cannot be used
        └── StoreError              the database refused a query
            ├── ContextTooLong      appending would make the paragraph longer than is allowed
            ├── DatabaseUnreachable no server, no permission, no room: nothing is wrong with the query
            └── DatabaseNewer       a later version of this program has changed the tables

Each message says what was wrong, what was expected and what to do, for the operator who reads the log. What a
chat gets to see is worded in bot/texts. No message holds the bot's token or the database's password.
"""

from qa_engine.errors import DuwenError


class BotError(DuwenError):
    """Any failure that the bot itself reports."""


class SettingsError(BotError):
    """Settings that cannot be used; the message names every one of them, one a line."""


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
