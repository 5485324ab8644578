"""Settings: read, checked and documented."""

from pathlib import Path

import pytest
from dotenv import dotenv_values
from sqlalchemy import make_url

from bot.errors import SettingsError
from bot.settings import Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
SECRET = "AAE-a_secret"


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours in the environment, no .env in the working directory."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_example_documents_every_variable_and_no_other() -> None:
    assert list(dotenv_values(EXAMPLE)) == [name.upper() for name in Settings.model_fields]


def test_the_values_of_the_example_are_the_defaults() -> None:
    assert Settings(_env_file=EXAMPLE) == Settings()


def test_a_dot_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("\ufeffMAX_CONTEXT_CHARS=7\nMAX_QUESTION_CHARS=8\n", encoding="utf-8")
    monkeypatch.setenv("MAX_QUESTION_CHARS", "9")
    settings = Settings()
    assert (settings.max_context_chars, settings.max_question_chars) == (7, 9)


@pytest.mark.parametrize(
    ("name", "value", "field", "read"),
    [
        ("TELEGRAM_API_URL", "http://localhost:8081/", "telegram_api_url", "http://localhost:8081"),
        ("ADMIN_USER_IDS", "12345,67890", "admin_user_ids", {12345, 67890}),
        ("ADMIN_USER_IDS", " 1， 2、3 ", "admin_user_ids", {1, 2, 3}),
        ("CHECKPOINT_DIR", "检查点", "checkpoint_dir", Path("检查点")),
        ("DEVICE", "cuda:1", "device", "cuda:1"),
        ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("MAX_CONTEXT_CHARS", "", "max_context_chars", 100_000),
    ],
)
def test_a_value_is_read_as_what_it_means(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, read: object
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(Settings(), field) == read


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///var/x.db", "sqlite+aiosqlite:///var/x.db"),
        ("sqlite:////srv/读问.db", "sqlite+aiosqlite:////srv/读问.db"),
        ("postgres://u:p%40w@h/d", "postgresql+asyncpg://u:p%40w@h/d"),
        ("postgresql://u@h:5433/d?sslmode=require", "postgresql+asyncpg://u@h:5433/d?ssl=require"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
    ],
)
def test_a_database_url_gets_its_async_driver(monkeypatch: pytest.MonkeyPatch, given: str, used: str) -> None:
    monkeypatch.setenv("DATABASE_URL", given)
    assert make_url(Settings().database_url) == make_url(used)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TELEGRAM_API_URL", "ftp://x", ["'ftp://x'", "http"]),
        ("ADMIN_USER_IDS", "1,zwei", ["'zwei'", "12345,67890"]),
        ("DATABASE_URL", "mysql://h/d", ["mysql://", "postgresql://user:password@host/database"]),
        ("DATABASE_URL", "var/duwen.db", ["not a database URL", "sqlite:///"]),
        ("DATABASE_URL", "sqlite://", ["names no file", "sqlite:///"]),
        ("CHECKPOINT_POLL_SECONDS", "nan", ["'nan'", "seconds, more than 0"]),
        ("MAX_CONTEXT_CHARS", "many", ["'many'", "1 or more"]),
        ("MAX_WAITING_QUESTIONS", "0", ["'0'", "1 or more"]),
        ("DEVICE", "tpu", ["'tpu'", "cuda:N"]),
        ("DTYPE", "int8", ["'int8'", "bfloat16"]),
        ("LOG_LEVEL", "loud", ["WARNING"]),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: list[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings()
    message = str(caught.value)
    assert name in message
    assert "Expected: " in message
    assert all(part in message for part in told)


def test_all_wrong_values_fit_on_one_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "?" * 500)
    with pytest.raises(SettingsError) as caught:
        Settings()
    lines = str(caught.value).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 240


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", f"123456:{SECRET}")
    monkeypatch.setenv("DATABASE_URL", "postgresql://bot:hunter2@h/d")
    settings = Settings()
    assert settings.telegram_bot_token is not None
    assert settings.telegram_bot_token.get_secret_value() == f"123456:{SECRET}"
    assert SECRET not in repr(settings)
    assert "hunter2" not in repr(settings)

    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", f"«123456:{SECRET}»")
    monkeypatch.setenv("DATABASE_URL", "mysql://bot:hunter2@h/d")
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert SECRET not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_dot_env_file_in_another_encoding_is_named() -> None:
    Path(".env").write_bytes("LOG_LEVEL=INFO # 日志".encode("gb18030"))
    with pytest.raises(SettingsError, match=r"\.env: it is not UTF-8"):
        Settings()
