"""One log format on stderr, and no secret in it.

The secrets are taken out of the finished text of a record, so they are gone from messages, arguments and
tracebacks alike, whoever logged them and at whatever level. What is worth logging is left to the other
modules.
"""

import logging
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from urllib.parse import quote

HIDDEN = "[hidden]"


class RedactingFormatter(logging.Formatter):
    """Time in UTC, level, logger, message; each secret replaced by `HIDDEN`, in percent-encoding too."""

    converter = staticmethod(time.gmtime)

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)sZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
        spellings = {spelling for secret in secrets for spelling in (secret, quote(secret, safe=""))}
        self._spellings = sorted(filter(None, spellings), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for spelling in self._spellings:
            text = text.replace(spelling, HIDDEN)
        return text


def secret_part(token: str) -> str:
    """The half of a bot token that is secret: what follows the bot's public number and a colon.

    Hiding this half hides the token in every spelling of the colon (`:`, `%3A`, `%253A`).
    """
    return token.partition(":")[2] or token


def set_up_logging(level: str, secrets: Iterable[str] = ()) -> None:
    """Send all records from `level` on, warnings and uncaught exceptions to stderr, without `secrets`.

    Libraries that speak of every request or part they load are heard at level DEBUG only.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    if level != "DEBUG":
        for chatty in ("httpx", "httpcore", "apscheduler", "alembic.runtime.plugins"):
            logging.getLogger(chatty).setLevel(logging.WARNING)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger("bot").critical("uncaught error", exc_info=(kind, error, traceback))
