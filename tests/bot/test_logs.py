"""No secret is in any log line, wherever in a record it stood."""

import logging
from urllib.parse import quote

import pytest

from bot.logs import HIDDEN, RedactingFormatter, secret_part

TOKEN = "123456:AAE-of_nobody"


def formatted(message: object, *values: object, error: BaseException | None = None) -> str:
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("bot", logging.INFO, __file__, 1, message, values, exc_info)
    return RedactingFormatter([secret_part(TOKEN), "pa/ss word", ""]).format(record)


@pytest.mark.parametrize("spelling", [TOKEN, quote(TOKEN, safe=""), quote(quote(TOKEN, safe="")), f"bot{TOKEN}/getMe"])
def test_a_token_is_hidden_in_every_spelling(spelling: str) -> None:
    line = formatted("calling %s", {"url": spelling})
    assert "AAE" not in line
    assert HIDDEN in line


def test_a_token_is_hidden_in_tracebacks() -> None:
    try:
        try:
            raise ValueError(TOKEN)
        except ValueError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        line = formatted("failed", error=error)
    assert "Traceback" in line
    assert "ValueError" in line
    assert "AAE" not in line


def test_a_password_is_hidden_as_it_is_and_percent_encoded() -> None:
    line = formatted("postgresql://user:pa%2Fss%20word@host and pa/ss word")
    assert line.endswith(f"postgresql://user:{HIDDEN}@host and {HIDDEN}")


def test_a_line_has_time_in_utc_level_and_logger() -> None:
    assert formatted("hello").split(" ", 1)[1] == "INFO bot: hello"


def test_what_is_no_token_at_all_is_hidden_whole() -> None:
    assert secret_part("nonsense") == "nonsense"
