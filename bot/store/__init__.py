"""The bot's memory: each chat's paragraphs, what was asked about them, what users said of that, and what they chose.

`Store` holds every query; `bot.store.migrating` brings a database up to date before a `Store` uses it. Rows,
SQL and SQLAlchemy's errors stay inside: callers get the values of `bot.store.records` and errors of the
`StoreError` family. What a command means, and how long a paragraph may be, is decided by the callers.
"""

from bot.store.records import (
    Author,
    Candidate,
    Chat,
    Cleared,
    Context,
    Correction,
    Forgotten,
    Judgement,
    Listed,
    Question,
    Standing,
    Verdict,
)
from bot.store.store import Store

__all__ = [
    "Author",
    "Candidate",
    "Chat",
    "Cleared",
    "Context",
    "Correction",
    "Forgotten",
    "Judgement",
    "Listed",
    "Question",
    "Standing",
    "Store",
    "Verdict",
]
