"""What an operator sets, from the environment and from `.env`; `.env.example` documents every variable.

Values are checked here, once, and typed from here on. Nothing is opened or connected: whether a server
answers or a folder exists is found out by whoever uses it.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, HttpUrl, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from bot.errors import SettingsError

DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


def _bot_token(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"\d+:[\w-]+", token.get_secret_value(), re.ASCII):
        raise ValueError("it has another form")
    return token


def _http_url(url: str) -> str:
    TypeAdapter(HttpUrl).validate_python(url)
    return url.rstrip("/")


def _ids(value: object) -> object:
    return re.split(r"[,，、\s]+", value.strip(",，、 ")) if isinstance(value, str) else value


def _async_database_url(database_url: str) -> str:
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):
        raise ValueError("it is not a database URL") from None
    if url.drivername not in DRIVERS:
        raise ValueError(f"it begins with {url.drivername}://")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("it names no file, so that a restart would forget everything")
    if "sslmode" in url.query:  # what libpq and hosting providers call asyncpg's `ssl`
        url = url.update_query_dict({"ssl": url.query["sslmode"]}).difference_update_query(["sslmode"])
    return url.set(drivername=DRIVERS[url.drivername]).render_as_string(hide_password=False)


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class Settings(BaseSettings):
    """The bot's settings; a field is read from the variable of its name in capitals.

    The description of a field says what is expected, in the words of an error message.
    Raises SettingsError, which names every variable that cannot be used.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",  # Notepad begins files with a byte order mark
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    telegram_bot_token: Annotated[SecretStr, AfterValidator(_bot_token)] | None = Field(
        None, description="the token from @BotFather: digits, a colon, letters"
    )
    telegram_api_url: Annotated[str, AfterValidator(_http_url)] = Field(
        "https://api.telegram.org", description="the address of a Bot API server, http://… or https://…"
    )
    admin_user_ids: Annotated[frozenset[int], NoDecode, BeforeValidator(_ids)] = Field(
        frozenset(), description="Telegram user ids with commas between them, such as 12345,67890"
    )
    allowed_chat_ids: Annotated[frozenset[int], NoDecode, BeforeValidator(_ids)] = Field(
        frozenset(), description="Telegram chat ids with commas between them, such as -1001234567890,12345"
    )
    allowed_user_ids: Annotated[frozenset[int], NoDecode, BeforeValidator(_ids)] = Field(
        frozenset(), description="Telegram user ids with commas between them, such as 12345,67890"
    )
    database_url: Annotated[str, AfterValidator(_async_database_url)] = Field(
        "sqlite+aiosqlite:///var/duwen.db",
        description="sqlite:///path/to/file.db or postgresql://user:password@host/database",
        repr=False,
    )
    checkpoint_dir: Path = Field(Path("checkpoints"), description="a folder")
    checkpoint_poll_seconds: float = Field(30, gt=0, allow_inf_nan=False, description="seconds, more than 0")
    max_context_chars: int = Field(100_000, gt=0, description="a number of characters, 1 or more")
    max_question_chars: int = Field(1000, gt=0, description="a number of characters, 1 or more")
    ask_timeout_seconds: float = Field(30, gt=0, allow_inf_nan=False, description="seconds, more than 0")
    max_waiting_questions: int = Field(256, gt=0, description="a number of questions, 1 or more")
    max_file_bytes: int = Field(20_000_000, ge=1, le=20_000_000, description="1 to 20000000: Telegram gives no more")
    max_file_pages: int = Field(500, ge=1, description="1 or more")
    file_seconds: float = Field(15, gt=0, allow_inf_nan=False, description="seconds, more than 0")
    file_memory_mb: int = Field(512, ge=256, description="256 or more")
    max_user_messages_a_minute: int = Field(60, ge=1, description="1 or more")
    max_chat_messages_a_minute: int = Field(120, ge=1, description="1 or more")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:N or mps")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="auto, float32, float16 or bfloat16"
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = Field(
        "INFO", description="DEBUG, INFO, WARNING or ERROR"
    )

    def __init__(self, **values: Any) -> None:
        # `from None`: pydantic's message repeats values, the token and the password among them.
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_explain(error)) from None
        except UnicodeDecodeError as error:
            raise SettingsError(f"Cannot read .env: it is not UTF-8 text ({error.reason}).") from None


def _explain(error: ValidationError) -> str:
    """One line a variable: its name, its value unless that is a secret, what is wrong, what was expected."""
    lines = ["These settings cannot be used (environment or .env):"]
    problems = {str(problem["loc"][0]): problem for problem in reversed(error.errors())}
    for name, field in Settings.model_fields.items():
        if name in problems:
            secret = name in ("telegram_bot_token", "database_url")
            value = "(not shown)" if secret else repr(str(problems[name]["input"]))[:60]
            problem = problems[name]["msg"].removeprefix("Value error, ")
            lines.append(f"  {name.upper()} = {value}: {problem}. Expected: {field.description}.")
    return "\n".join(lines)
