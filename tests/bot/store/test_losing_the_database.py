"""Processes are killed and databases go away: nothing that was stored is lost, and the words help."""

import asyncio
import shutil
import signal
import sys
import traceback
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from bot.errors import DatabaseUnreachable, StoreError
from bot.store import Author, Chat, Store
from bot.store.migrating import migrate, migration_connection

ROOT = Path(__file__).parents[3]
CHAT = Chat(id=7, kind="private")
ANN = Author(id=8, name="安")

SET_AND_DIE = """
import asyncio, os, signal, sys
from bot.store import Author, Chat, Store

async def main():
    await Store(sys.argv[1]).set_context(Chat(7, "private"), "还在", Author(8, "安"), 1)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_right_after_set_context_loses_nothing(store: Store, database_url: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SET_AND_DIE, database_url, cwd=ROOT)
    assert await process.wait() == -signal.SIGKILL
    context = await store.current_context(CHAT.id)
    assert context is not None
    assert context.text == "还在"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_server_that_drops_the_database_is_told_and_its_return_is_enough(
    store: Store, database_url: str
) -> None:
    await store.set_context(CHAT, "一", ANN, message_id=1)
    url = make_url(database_url)
    server = create_async_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {url.database} WITH (FORCE)"))
        with pytest.raises(DatabaseUnreachable, match="Does PostgreSQL run there"):
            await store.current_context(CHAT.id)
        await connection.execute(text(f"CREATE DATABASE {url.database}"))
    await server.dispose()
    await migrate(database_url)
    assert await store.current_context(CHAT.id) is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_folder_that_is_gone_is_told(store: Store, database_url: str) -> None:
    folder = Path(make_url(database_url).database or "").parent
    shutil.rmtree(folder)
    with pytest.raises(DatabaseUnreachable, match="unable to open database file") as caught:
        await store.current_context(CHAT.id)
    assert str(folder) in str(caught.value)


async def test_a_database_without_tables_says_how_to_make_them(database_url: str) -> None:
    async with migration_connection(database_url):
        pass
    store = Store(database_url)
    with pytest.raises(StoreError, match="python -m bot migrate") as caught:
        await store.current_context(CHAT.id)
    assert not isinstance(caught.value, DatabaseUnreachable)
    await store.close()


async def test_what_people_wrote_stays_out_of_the_error(database_url: str) -> None:
    async with migration_connection(database_url):
        pass
    store = Store(database_url)
    written = "".join(["只有", "我们", "知道"])  # in parts, because a traceback quotes source lines
    with pytest.raises(StoreError) as caught:
        await store.set_context(Chat(id=7, kind="group", title=written), written, ANN, message_id=1)
    assert written not in "".join(traceback.format_exception(caught.value))
    await store.close()


def test_a_missing_driver_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(StoreError, match=r"asyncpg.*duwen\[postgres\]"):
        Store("postgresql+asyncpg://bot@localhost/duwen")
