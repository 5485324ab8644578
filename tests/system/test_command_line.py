"""`python -m bot` as an operator calls it: exit statuses, one clear line a failure, and no wait without need."""

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.bot_api_server import TOKEN
from tests.system.bot_process import environment, run


def test_without_a_token_the_chat_in_the_terminal_is_named(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert ended.returncode == 1
    assert re.fullmatch(r"bot: TELEGRAM_BOT_TOKEN is not set\. .+ python -m bot chat\n", ended.stderr)


def test_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    ended = run(tmp_path, TELEGRAM_BOT_TOKEN="nonsense", MAX_CONTEXT_CHARS="many")
    assert ended.returncode == 1
    assert "TELEGRAM_BOT_TOKEN" in ended.stderr
    assert "MAX_CONTEXT_CHARS" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [["talk"], ["chat", "--language", "fr"], ["migrate", "now"]])
def test_wrong_usage_is_told(tmp_path: Path, arguments: list[str]) -> None:
    ended = run(tmp_path, *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: python -m bot")


def test_migrate_makes_the_database_and_says_so(tmp_path: Path) -> None:
    ended = run(tmp_path, "migrate", "--database-url", f"sqlite:///{tmp_path / 'new' / 'bot.db'}")
    assert ended.returncode == 0
    assert re.search(r"^The database is at revision \w+\.\n\Z", ended.stderr, re.MULTILINE)
    assert (tmp_path / "new" / "bot.db").is_file()


@pytest.mark.parametrize("arguments", [[], ["migrate"]])
def test_a_folder_that_is_a_file_cannot_hold_a_database(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "file").touch()
    place = f"sqlite:///{tmp_path}/file/duwen.db"
    ended = run(tmp_path, *arguments, TELEGRAM_BOT_TOKEN=TOKEN, DATABASE_URL=place, LOG_LEVEL="ERROR")
    assert ended.returncode == 1
    assert re.fullmatch(r"bot: Cannot use the database .+\n", ended.stderr)


@pytest.mark.parametrize("arguments", [["chat"], ["migrate"]])
def test_a_database_from_a_newer_version_is_left_alone(tmp_path: Path, arguments: list[str]) -> None:
    run(tmp_path, "migrate")
    with sqlite3.connect(tmp_path / "duwen.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffff'")
    database.close()
    ended = run(tmp_path, *arguments, TELEGRAM_BOT_TOKEN=TOKEN, LOG_LEVEL="ERROR")
    assert ended.returncode == 1
    assert re.fullmatch(r"bot: The database is at revision ffff, .+\n", ended.stderr)


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["migrate"], 0), ([], 1), (["talk"], 2)])
def test_what_needs_no_model_does_not_wait_for_torch(tmp_path: Path, arguments: list[str], status: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bot", *arguments],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ended.returncode == status
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "argparse" in imported
    assert imported.isdisjoint({"torch", "transformers"})
