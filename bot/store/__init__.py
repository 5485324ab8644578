"""The bot's memory: which paragraph each chat has set, what was asked about it, and what users and groups chose.

`Store` holds every query; `bot.store.migrating` brings a database up to date before a `Store` uses it. Rows,
SQL and SQLAlchemy's errors stay inside: callers get the values of `bot.store.records` and errors of the
`StoreError` family. What a command means, and how long a paragraph may be, is decided by the callers.
"""

from bot.store.records import Author, Chat, Cleared, Context, Standing
from bot.store.store import Store

__all__ = ["Author", "Chat", "Cleared", "Context", "Standing", "Store"]
