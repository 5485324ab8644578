"""Databases for the bot's tests: a new SQLite file always, a new PostgreSQL database where a server answers.

The server is looked for at TEST_POSTGRES_URL. Which databases a run used stands in pytest's header.
"""

import os
import socket
import sqlite3
import uuid
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from bot.store import Store
from bot.store.migrating import migrate

POSTGRES_URL = make_url(os.environ.get("TEST_POSTGRES_URL", "postgresql+asyncpg://postgres@127.0.0.1:5432/test"))


@cache
def postgres_answers() -> bool:
    try:
        socket.create_connection((POSTGRES_URL.host, POSTGRES_URL.port or 5432), timeout=2).close()
    except OSError:
        return False
    return True


def pytest_report_collectionfinish() -> str:
    place = POSTGRES_URL.render_as_string(hide_password=True)
    postgres = f"PostgreSQL at {place}" if postgres_answers() else f"no PostgreSQL (none answers at {place})"
    return f"databases: SQLite {sqlite3.sqlite_version}, {postgres}"


async def in_postgres(statement: str) -> None:
    engine = create_async_engine(POSTGRES_URL, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of an empty database of this test's own; nothing has been migrated."""
    if request.param == "sqlite":
        yield URL.create("sqlite+aiosqlite", database=str(tmp_path / "var" / "duwen.db")).render_as_string()
        return
    if not postgres_answers():
        pytest.skip(f"no PostgreSQL answers at {POSTGRES_URL.render_as_string(hide_password=True)}")
    name = f"duwen_test_{uuid.uuid4().hex}"
    await in_postgres(f"CREATE DATABASE {name}")
    yield POSTGRES_URL.set(database=name).render_as_string(hide_password=False)
    await in_postgres(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """A store on a migrated database."""
    await migrate(database_url)
    store = Store(database_url)
    yield store
    await store.close()
