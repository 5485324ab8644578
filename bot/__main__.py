"""The bot's command line: `python -m bot` (Telegram), `chat` (the same bot in a terminal), `migrate`, `export`.

Exits with 0 on success, 1 on a failure that it reports, 2 on wrong usage; messages go to stderr. Everything
that takes long to import is imported by the command that needs it.
"""

import argparse
import asyncio
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import make_url

from bot.errors import SettingsError
from bot.logs import secret_part, set_up_logging
from bot.settings import Settings
from qa_engine.errors import DuwenError


def main() -> int:
    """Run the command; returns the exit status."""
    options = parser().parse_args()
    try:
        settings = Settings(**({"database_url": options.database_url} if options.database_url else {}))
        set_up_logging(log_level(settings, options.command), secrets_of(settings))
        match options.command:
            case "migrate":
                return migrate(settings)
            case "export":
                return export(settings, options.output, options.since, options.min_agreement)
            case "chat":
                return chat(settings, options.play, options.language)
            case _:
                return telegram(settings)
    except DuwenError as error:
        print(f"bot: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bot",
        description="Answers on Telegram, unless a command says otherwise.",
        epilog="Settings are read from the environment and from .env; .env.example documents them.",
    )
    parser.set_defaults(database_url=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    database = argparse.ArgumentParser(add_help=False)
    database.add_argument("--database-url", metavar="URL", help="instead of DATABASE_URL")
    chat = commands.add_parser("chat", parents=[database], help="the same bot in this terminal, without a token")
    chat.add_argument("--play", type=Path, metavar="FILE", help="type the lines of FILE first")
    chat.add_argument("--language", choices=("zh", "zh-hant", "en"), default="zh", help="of the user (default: zh)")
    commands.add_parser("migrate", parents=[database], help="bring the database up to date, and no more")
    export = commands.add_parser("export", parents=[database], help="write what users corrected as a SQuAD 2.0 file")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="such as corrections.json")
    export.add_argument("--since", type=_moment, metavar="TIME", help="only what was said since, such as 2026-11-23")
    agreement = "only answers that N users hold for right (default: 1)"
    export.add_argument("--min-agreement", type=int, default=1, metavar="N", help=agreement)
    return parser


def _moment(text: str) -> datetime:
    """A date or time; in UTC where it does not say. argparse reports the ValueError of any other text."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def telegram(settings: Settings) -> int:
    if settings.telegram_bot_token is None:
        raise SettingsError(
            "TELEGRAM_BOT_TOKEN is not set. @BotFather on Telegram gives you one; put it into .env. "
            "Without a token, try the same bot in this terminal: python -m bot chat"
        )
    from bot.application import run_telegram

    try:
        asyncio.run(run_telegram(settings))
    except asyncio.CancelledError:
        logging.getLogger("bot").info("stopped before the bot was ready")
    return 0


def chat(settings: Settings, play: Path | None, language_code: str) -> int:
    from bot.application import run_chat

    return 0 if run_chat(settings, play, language_code) else 1


def migrate(settings: Settings) -> int:
    from bot.store.migrating import migrate

    revision = asyncio.run(migrate(settings.database_url))
    print(f"The database is at revision {revision}.", file=sys.stderr)
    return 0


def export(settings: Settings, file: Path, since: datetime | None, min_agreement: int) -> int:
    from bot.learning import export
    from bot.store import Judgement, Store
    from bot.store.migrating import migrate

    async def judgements() -> list[Judgement]:
        await migrate(settings.database_url)
        store = Store(settings.database_url)
        try:
            return await store.judgements(since)
        finally:
            await store.close()

    count = export(asyncio.run(judgements()), file, min_agreement)
    print(f"{file}: {count} questions. Train on them: python -m trainer --train {file}", file=sys.stderr)
    return 0


def log_level(settings: Settings, command: str | None) -> str:
    """A log between the lines of a chat disturbs; there it is what LOG_LEVEL says, or else warnings only."""
    is_said = "log_level" in settings.model_fields_set
    return "WARNING" if command == "chat" and not is_said else settings.log_level


def secrets_of(settings: Settings) -> list[str]:
    """What no log may show: the secret half of the token, and the database's password."""
    token = settings.telegram_bot_token
    return [
        secret_part(token.get_secret_value()) if token else "",
        make_url(settings.database_url).password or "",
    ]


if __name__ == "__main__":
    sys.exit(main())
