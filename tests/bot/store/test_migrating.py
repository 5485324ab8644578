"""Migrations: one history for both databases, one process at a time, and words for what goes wrong."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, make_url, text

from bot.errors import DatabaseNewer, DatabaseUnreachable
from bot.store import Author, Chat, Store, migrating
from bot.store.migrating import alembic_config, migrate, migration_connection
from bot.store.models import Row

ROOT = Path(__file__).parents[3]
MIGRATE = "import asyncio, sys; from bot.store.migrating import migrate; asyncio.run(migrate(sys.argv[1]))"
TABLES = {"inbox", "alembic_version", "chat_settings", "chats", "contexts", "feedback", "questions", "users"}


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def differences(connection: Connection) -> object:
    return compare_metadata(MigrationContext.configure(connection), Row.metadata)


async def test_an_empty_database_gets_every_table(database_url: str) -> None:
    revision = await migrate(database_url)
    async with migration_connection(database_url) as connection:
        assert await connection.run_sync(tables) == TABLES
        stored = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    assert stored == revision


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    assert await migrate(database_url) == await migrate(database_url)


async def test_the_history_makes_exactly_the_tables_of_the_models(database_url: str) -> None:
    await migrate(database_url)
    async with migration_connection(database_url) as connection:
        assert await connection.run_sync(differences) == []


async def test_the_history_can_be_walked_back_and_forth(database_url: str) -> None:
    await migrate(database_url)
    async with migration_connection(database_url) as connection:
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync), "base"))
        assert await connection.run_sync(tables) == {"alembic_version"}
    await migrate(database_url)
    async with migration_connection(database_url) as connection:
        assert await connection.run_sync(differences) == []


async def test_contexts_of_the_first_version_stay_what_they_were(database_url: str) -> None:
    """What was current is current; what was replaced stays out of sight, with its questions."""
    async with migration_connection(database_url) as connection:
        await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), "0001"))
        for statement in (
            "INSERT INTO chats VALUES (7, 'private', NULL, '2026-11-23 10:00', '2026-11-23 10:00')",
            "INSERT INTO contexts VALUES (1001, 7, '旧', 8, '安', 1, '2026-11-23 10:00', '2026-11-23 11:00')",
            "INSERT INTO contexts VALUES (1002, 7, '新', 8, '安', 2, '2026-11-23 11:00', NULL)",
        ):
            await connection.execute(text(statement))
    await migrate(database_url)
    store = Store(database_url)
    listed, number = await store.contexts(7, 0, 0, 9)
    assert ([(each.title, each.is_current) for each in listed], number) == ([("新", True)], 1)
    await store.set_context(Chat(7, "private"), "话题", Author(8, "安"), 3, topic_id=5)
    await store.close()
    async with migration_connection(database_url) as connection:
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync), "0001"))
        kept = await connection.execute(text("SELECT text FROM contexts WHERE replaced_at IS NULL"))
        assert kept.scalars().all() == ["新"]


async def test_a_migration_that_fails_leaves_nothing_behind(database_url: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        async with migration_connection(database_url) as connection:
            await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), "head"))
            raise KeyboardInterrupt
    async with migration_connection(database_url) as connection:
        assert await connection.run_sync(tables) == set()


async def test_processes_that_start_together_migrate_one_after_the_other(database_url: str) -> None:
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, database_url, cwd=ROOT, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    ended = [(await process.communicate(), process.returncode) for process in started]
    assert [(code, stderr) for (_, stderr), code in ended] == [(0, b"")] * 3
    async with migration_connection(database_url) as connection:
        assert await connection.run_sync(differences) == []


async def test_a_migration_that_never_ends_is_not_waited_for_forever(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "LOCK_SECONDS", 1)
    async with migration_connection(database_url):
        with pytest.raises(DatabaseUnreachable, match="lock"):
            await migrate(database_url)


async def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    known = await migrate(database_url)
    async with migration_connection(database_url) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseNewer, match="install that version") as caught:
        await migrate(database_url)
    assert (caught.value.found, caught.value.known) == ("9999", known)
    async with migration_connection(database_url) as connection:
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / "file" / "duwen.db"
    with pytest.raises(DatabaseUnreachable, match="may write") as caught:
        await migrate(f"sqlite+aiosqlite:///{place}")
    assert str(place) in str(caught.value)


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    place = tmp_path / "duwen.db"
    place.write_text("not a database " * 100)
    with pytest.raises(DatabaseUnreachable, match="file is not a database") as caught:
        await migrate(f"sqlite+aiosqlite:///{place}")
    assert str(place) in str(caught.value)
    assert place.read_text().startswith("not a database")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("change", "reason"),
    [({"username": "nobody", "password": "hunter2"}, "nobody"), ({"database": "no_such"}, "no_such")],
)
async def test_a_login_that_is_refused_is_told_without_the_password(
    database_url: str, change: dict[str, Any], reason: str
) -> None:
    url = make_url(database_url).set(**change).render_as_string(hide_password=False)
    with pytest.raises(DatabaseUnreachable, match=f"{reason}.*DATABASE_URL") as caught:
        await migrate(url)
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_is_down_is_told_without_the_password(unused_tcp_port: int) -> None:
    url = f"postgresql+asyncpg://bot:hunter2@127.0.0.1:{unused_tcp_port}/duwen?password=hunter2"
    with pytest.raises(DatabaseUnreachable, match="Does PostgreSQL run there") as caught:
        await migrate(url)
    assert f"127.0.0.1:{unused_tcp_port}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_an_installed_copy_brings_its_history_along(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bot", tmp_path / "bot")
    shutil.copytree(ROOT / "alembic", tmp_path / "bot" / "store" / "migrations")  # as the wheel's build does
    database_url = f"sqlite+aiosqlite:///{tmp_path}/duwen.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MIGRATE, database_url),
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")
    async with migration_connection(database_url) as connection:
        assert await connection.run_sync(tables) == TABLES


async def test_alembic_on_the_command_line_agrees(database_url: str) -> None:
    for words in (["upgrade", "head"], ["check"]):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "alembic", *words),
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
    assert "No new upgrade operations detected" in output.decode()
