"""Alembic's way in: works on the connection handed in, or on DATABASE_URL for a developer's command line.

`bot.store.migrating` hands a connection in. From a shell, `alembic upgrade head`, `alembic check` and
`alembic revision --autogenerate -m "what changes"` work on the database of the environment or of `.env`.
"""

import asyncio
import logging
from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection
from sqlalchemy.types import TypeDecorator

from bot.settings import Settings
from bot.store.migrating import migration_connection
from bot.store.models import Row


def plain_type(kind: str, item: object, _: AutogenContext) -> str | Literal[False]:
    """Render our column types as the plain ones beneath, so that history does not depend on today's code."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    return False


def run_on(connection: Connection) -> None:
    """Run what the command asks for, on `connection` and in its transaction."""
    context.configure(
        connection=connection,
        target_metadata=Row.metadata,
        render_item=plain_type,
        render_as_batch=True,  # SQLite alters tables by copying them
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_on_database_url() -> None:
    """The command line's way: our own connection, under the same lock as the bot's."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    async with migration_connection(Settings().database_url) as connection:
        await connection.run_sync(run_on)


handed_in = context.config.attributes.get("connection")
if handed_in is not None:
    run_on(handed_in)
else:
    asyncio.run(run_on_database_url())
