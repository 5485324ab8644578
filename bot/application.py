"""The one place where the parts are wired: database, reader, engine, reload job, handlers, transport.

Telegram and the terminal are two transports of the same application. What an update leads to is left to the
handlers; how it comes in and how the reply goes out, to `bot.transport` and `bot.console`.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import cast

from anyio.from_thread import start_blocking_portal
from pydantic import SecretStr
from telegram import LinkPreviewOptions, Update
from telegram.constants import ParseMode
from telegram.error import InvalidToken, TelegramError
from telegram.ext import (
    ApplicationBuilder,
    CallbackQueryHandler,
    ChatMemberHandler,
    ContextTypes,
    Defaults,
    InlineQueryHandler,
    MessageHandler,
    TypeHandler,
)
from telegram.ext.filters import ANIMATION, PHOTO, TEXT, ChatType, Document, StatusUpdate, UpdateType
from telegram.request import BaseRequest, HTTPXRequest

from bot import console
from bot.errors import SettingsError
from bot.handlers import (
    admitting,
    asking,
    choosing,
    failing,
    files,
    inline,
    introducing,
    judging,
    library,
    limiting,
    operating,
    paragraphs,
    permitting,
)
from bot.handlers.choosing import if_permitted
from bot.handlers.conversation import (
    BotApplication,
    BotContext,
    IsCommand,
    Mentioned,
    Parts,
    RepliesToFile,
    RepliesToMe,
    ToMe,
)
from bot.inbox import Inbox, forget
from bot.settings import Settings
from bot.store import Store
from bot.store.migrating import migrate
from bot.texts import language_of, texts_in
from bot.transport import OrderInChat, PatientRateLimiter
from qa_engine import Engine
from qa_engine.reloading import Change, CheckpointWatcher, load_newest

MAX_CONNECT_PAUSE_SECONDS = 60
REQUEST_SECONDS = 10
ADMISSION, PACE, PASTES = -3, -2, -1
"""Groups of handlers that may end an update's way before the others see it."""

logger = logging.getLogger(__name__)


async def run_telegram(settings: Settings) -> None:
    """Answer on Telegram until SIGINT or SIGTERM; then finish what has been asked, and return.

    Raises SettingsError when Telegram refuses the token, now or later. While its server cannot be reached the
    bot keeps trying: it may have been started before the network was.
    """
    this_task = cast("asyncio.Task[None]", asyncio.current_task())
    _on_stop_signal(this_task.cancel)
    request = HTTPXRequest(read_timeout=REQUEST_SECONDS, connect_timeout=REQUEST_SECONDS)
    try:
        async with opened(settings, request) as application:
            await offer_commands(application)
            await _answer_until_stopped(application)
    except InvalidToken:
        raise SettingsError(
            f"{settings.telegram_api_url} refused TELEGRAM_BOT_TOKEN: it was mistyped or revoked "
            "(@BotFather tells the right one), or that address is no Bot API server."
        ) from None


def run_chat(settings: Settings, play: Path | None, language_code: str) -> bool:
    """Answer at the terminal: first what `play` says, then what is typed. Whether each line got its reply.

    The bot works in a thread of its own, so that it goes on while this one waits for a line.
    """
    script = console.read_script(play) if play else None
    console.speak_utf8()
    request = console.TerminalRequest()
    at_terminal = {
        "telegram_bot_token": SecretStr(console.TOKEN),
        "admin_user_ids": frozenset({console.USER_ID}),
    }
    everything = opened(settings.model_copy(update=at_terminal), request)
    have_replies = True
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(everything) as application:
        terminal = console.Terminal(application, request, language_code)
        with suppress(KeyboardInterrupt):
            for text in console.messages(script, texts_in(language_of(language_code))):
                have_replies &= portal.call(terminal.say, text)
    return have_replies


@asynccontextmanager
async def opened(settings: Settings, request: BaseRequest) -> AsyncIterator[BotApplication]:
    """Everything that answers, ready and connected; closed in reverse order when the block is left.

    Raises StoreError when the database cannot be used, and InvalidToken when Telegram refuses the token.
    """
    logger.info("the database is at revision %s", await migrate(settings.database_url))
    store = Store(settings.database_url)
    try:
        folder, device, dtype = settings.checkpoint_dir, settings.device, settings.dtype
        reader = await asyncio.to_thread(load_newest, folder, device=device, dtype=dtype)
        logger.info("%s reads on %s in %s", reader.name, reader.device, reader.dtype)
        async with Engine(reader, max_waiting=settings.max_waiting_questions) as engine:

            async def announce(change: Change) -> None:
                await operating.announce(application, change)

            watcher = CheckpointWatcher(engine, folder, device=device, dtype=dtype, on_change=announce)
            application = build_application(Parts(settings, store, engine, watcher), request)
            await _connect(application)
            watcher.start(settings.checkpoint_poll_seconds)
            try:
                yield application
            finally:
                await watcher.stop()
                await application.shutdown()
    finally:
        await store.close()


def build_application(parts: Parts, request: BaseRequest) -> BotApplication:
    """The application with all its handlers, which sends by `request`; not yet connected."""
    token = cast("SecretStr", parts.settings.telegram_bot_token)
    context_types = ContextTypes(context=BotContext, bot_data=cast("type[Parts]", lambda: parts))
    defaults = Defaults(
        parse_mode=ParseMode.HTML,
        link_preview_options=LinkPreviewOptions(is_disabled=True),
        do_quote=True,
        allow_sending_without_reply=True,
    )
    application = (
        ApplicationBuilder()
        .token(token.get_secret_value())
        .base_url(f"{parts.settings.telegram_api_url}/bot")
        .base_file_url(f"{parts.settings.telegram_api_url}/file/bot")
        .request(request)
        .updater(None)
        .job_queue(None)
        .rate_limiter(PatientRateLimiter())
        .concurrent_updates(OrderInChat(partial(forget, parts.store)))
        .defaults(defaults)
        .context_types(context_types)
        .build()
    )
    add_handlers(application)
    return application


def add_handlers(application: BotApplication) -> None:
    """Which function gets which update: the first line that fits."""
    in_private, written = ChatType.PRIVATE, TEXT & ~IsCommand()
    for fitting, function in (
        (ToMe("start"), introducing.start),
        (ToMe("help"), introducing.help_),
        (ToMe("context") & RepliesToFile(), if_permitted(files.take_file_replied_to)),
        (ToMe("context", in_caption=True) & UpdateType.MESSAGE, if_permitted(files.take_file)),
        (ToMe("context"), if_permitted(paragraphs.set_or_show_context)),
        (ToMe("append") & UpdateType.EDITED_MESSAGE, if_permitted(paragraphs.edited_append)),
        (ToMe("append"), if_permitted(paragraphs.append)),
        (ToMe("clear"), if_permitted(paragraphs.clear)),
        (ToMe("contexts"), library.contexts),
        (ToMe("ask"), asking.ask),
        (ToMe("privacy"), permitting.privacy),
        (ToMe("forget"), permitting.forget),
        (ToMe("language"), choosing.language),
        (ToMe("settings"), choosing.settings),
        (ToMe("status"), operating.status),
        (ToMe("reload"), operating.reload),
        (ToMe(explicit=True) | (ToMe() & in_private), introducing.unknown_command),
        (StatusUpdate.MIGRATE, paragraphs.follow_migration),
        (RepliesToMe(library.RENAME) & written & UpdateType.MESSAGE, if_permitted(library.rename)),
        (RepliesToMe(judging.CORRECT) & written, judging.take_correction),
        (RepliesToMe(paragraphs.SET) & written, if_permitted(paragraphs.set_or_show_context)),
        (RepliesToMe(paragraphs.SET) & Document.ALL & ~ANIMATION & UpdateType.MESSAGE, if_permitted(files.take_file)),
        (written & (in_private | Mentioned()), asking.ask),
        (written & RepliesToMe(), asking.ask_by_reply),
        (((Document.ALL & ~ANIMATION) | PHOTO) & in_private & UpdateType.MESSAGE, files.take_file),
        (in_private & ~TEXT & ~StatusUpdate.ALL & UpdateType.MESSAGE, introducing.not_text),
    ):
        application.add_handler(MessageHandler(fitting, function))
    for pattern, tapped in (
        (library.BUTTON, library.tap),
        (paragraphs.TAKE_BUTTON, paragraphs.take_message),
        (judging.BUTTON, judging.tap),
        (permitting.LEARNING_BUTTON, permitting.choose_learning),
        (permitting.FORGET_BUTTON, permitting.forget_or_keep),
        (choosing.LANGUAGE_BUTTON, choosing.choose_language),
        (choosing.SETTINGS_BUTTON, choosing.choose_settings),
        (None, judging.unknown_button),
    ):
        application.add_handler(CallbackQueryHandler(tapped, pattern))
    application.add_handler(InlineQueryHandler(inline.answer_inline))
    application.add_handler(ChatMemberHandler(admitting.follow_membership, ChatMemberHandler.MY_CHAT_MEMBER))
    application.add_handler(TypeHandler(Update, admitting.admit), ADMISSION)
    application.add_handler(MessageHandler(admitting.FOR_ME & ~StatusUpdate.ALL, limiting.slow_down), PACE)
    application.add_handler(CallbackQueryHandler(limiting.slow_down_taps), PACE)
    application.add_handler(MessageHandler(written & ~RepliesToMe() & UpdateType.MESSAGE, paragraphs.join_part), PASTES)
    application.add_error_handler(failing.report_error)


async def offer_commands(application: BotApplication) -> None:
    """Fill what Telegram shows of the bot, and for those who run it a menu with their commands."""
    bot, parts = application.bot, application.bot_data
    await introducing.offer_commands(bot)
    for user_id in parts.settings.admin_user_ids:
        chosen = (await parts.store.standing(user_id, None)).language
        await introducing.offer_commands_to(bot, user_id, chosen, is_admin=True)


async def _connect(application: BotApplication) -> None:
    """Make the bot known to its server, however long that takes to answer. Raises InvalidToken."""
    pause_seconds = 1
    while True:
        try:
            await application.initialize()
            await application.bot.delete_webhook()
            return
        except InvalidToken:
            raise
        except TelegramError as error:
            logger.error(
                "cannot reach %s: %s. Is the address right, and the network up? Trying again in %d s.",
                application.bot_data.settings.telegram_api_url,
                error,
                pause_seconds,
            )
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, MAX_CONNECT_PAUSE_SECONDS)


async def _answer_until_stopped(application: BotApplication) -> None:
    inbox = Inbox(application.bot, application.bot_data.store, application.update_queue)
    task = asyncio.create_task(inbox.run())
    _on_stop_signal(task.cancel)
    await application.start()
    logger.info("ready: @%s answers", application.bot.username)
    try:
        with suppress(asyncio.CancelledError):
            await task
    finally:
        logger.info("stopping, when what was asked is answered")
        await application.stop()
    await inbox.confirm()


def _on_stop_signal(stop: Callable[[], object]) -> None:
    """Have SIGINT and SIGTERM call `stop`, once: the second one ends the process where it stands."""
    loop = asyncio.get_running_loop()

    def stop_once() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_once)
