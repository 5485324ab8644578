"""The README's promises: what it shows can be run, in both languages."""

import re
import shlex
import sqlite3
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from bot.store.migrating import migrate

ROOT = Path(__file__).parents[2]
READMES = ["README.md", "README.zh-CN.md"]


def blocks(readme: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("readme", READMES)
def test_the_python_of_the_readme_runs(readme: str) -> None:
    (snippet,) = blocks(readme, "python")
    result = subprocess.run([sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("readme", READMES)
async def test_the_queries_of_the_readme_run(readme: str, tmp_path: Path) -> None:
    (queries,) = blocks(readme, "sql")
    database = tmp_path / "duwen.db"
    await migrate(f"sqlite+aiosqlite:///{database}")
    with sqlite3.connect(database) as connection:
        for query in queries.strip().split(";\n"):
            connection.execute(query).fetchall()
    connection.close()


@pytest.mark.parametrize("readme", READMES)
def test_the_commands_of_the_readme_exist(readme: str) -> None:
    """Every `make` target stands in the Makefile, every `python -m` command takes the flags it is shown with."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for block in blocks(readme, "console"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[0] == "make":
                assert words[1] in targets
            elif words[0] == "python":
                check_flags(words[2], words[3:])


def check_flags(module: str, arguments: list[str]) -> None:
    usage = help_of(module, *(word for word in arguments[:1] if not word.startswith("-")))
    assert [flag for flag in arguments if flag.startswith("-") and flag not in usage] == []


@cache
def help_of(*words: str) -> str:
    command = [sys.executable, "-m", *words, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_both_readmes_show_the_same_commands() -> None:
    def commands(readme: str) -> list[list[str]]:
        lines = "".join(blocks(readme, "console")).splitlines()
        return [shlex.split(line, comments=True) for line in lines if "git clone" not in line]

    assert commands("README.md") == commands("README.zh-CN.md")
    assert blocks("README.md", "sql") == blocks("README.zh-CN.md", "sql")
    assert blocks("README.md", "ini") == blocks("README.zh-CN.md", "ini")
