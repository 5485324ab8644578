"""Brings a database up to date with the history in alembic/, one process at a time.

The bot calls `migrate` before it opens a `Store`; Alembic's own command line comes in through alembic/env.py
and takes the same lock. What the tables are is said in `models`, how they came about in alembic/versions/.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import AsyncFileLock
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.errors import DatabaseNewer
from bot.store.connecting import open_engine, reported, sqlite_file

LOCK_SECONDS = 60
POSTGRES_LOCK = 0x6475_7765_6E  # "duwen": any number will do that no other program of this database takes


async def migrate(database_url: str) -> str:
    """Upgrade the database to the newest revision, from nothing if need be, and return that revision.

    Either all of it happens or nothing. Raises DatabaseNewer when a later version of this program was here,
    DatabaseUnreachable when the database cannot be had or another process has been migrating it for a minute.
    """
    async with migration_connection(database_url) as connection:
        return await connection.run_sync(_upgrade)


@asynccontextmanager
async def migration_connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    """A connection inside a transaction, while no other process migrates the same database."""
    url = make_url(database_url)
    file = sqlite_file(url)
    engine = open_engine(url, migrating=True)
    try:
        with reported(url):
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            turn = nullcontext() if file is None else AsyncFileLock(f"{file}.lock", timeout=LOCK_SECONDS)
            async with turn, engine.begin() as connection:
                if file is None:
                    await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock({POSTGRES_LOCK})"))
                yield connection
    finally:
        await engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """What Alembic's commands need to work on `connection`: our scripts, and the connection for env.py."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    return config


def _upgrade(connection: Connection) -> str:
    config = alembic_config(connection)
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head() or "base"
    known = {script.revision for script in scripts.walk_revisions()}
    for found in MigrationContext.configure(connection).get_current_heads():
        if found not in known:
            raise DatabaseNewer(found, head)
    command.upgrade(config, "head")
    return head


def _scripts() -> Path:
    """alembic/ in a checkout; in an installed wheel, the copy that the build puts beside this file."""
    installed = Path(__file__).parent / "migrations"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "alembic"
