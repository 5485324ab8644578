"""/start, /help, the menus and descriptions that Telegram shows, and a word to messages that are not to be answered.

Telegram tells menus and descriptions apart by a language of two letters: `zh` is one, whatever the script. Who has
chosen another language than Telegram would show gets a menu of their own, in their private chat.
"""

import logging

from telegram import (
    Bot,
    BotCommandScope,
    BotCommandScopeAllChatAdministrators,
    BotCommandScopeAllGroupChats,
    BotCommandScopeAllPrivateChats,
    BotCommandScopeChat,
    Update,
    User,
)
from telegram.error import TelegramError

from bot.handlers.conversation import BotContext, command_in
from bot.replies import fill
from bot.texts import CHINESE, ENGLISH, N_, Texts, language_of, texts_in

COMMANDS = {
    "context": N_("set the paragraph, or show the one that is set"),
    "append": N_("add to the paragraph"),
    "contexts": N_("the texts that are kept: switch, rename, delete"),
    "ask": N_("ask about the paragraph"),
    "clear": N_("delete the paragraph and all questions"),
    "privacy": N_("what is kept, and whether it may teach the model"),
    "forget": N_("delete all that is known of this chat"),
    "status": N_("the model, and what it has done"),
    "language": N_("the language that I speak"),
    "help": N_("how to use this bot"),
    "start": N_("what this bot is"),
}
PRIVATE_COMMANDS = ("start",)
GROUP_ADMIN_COMMANDS = {"settings": N_("who may set the paragraph")}
ADMIN_COMMANDS = {"reload": N_("look for a new checkpoint now")}


DESCRIPTION = N_(
    "I answer questions about a Chinese text with the text's own words, and show the sentence they stand in. "
    "I make nothing up: where the text does not say, I tell you so.\n\n"
    "Send /context and a text, then ask. I work in groups, too."
)
SHORT_DESCRIPTION = N_("Answers questions about a Chinese text with the text's own words.")

MENU_LANGUAGES = {None: ENGLISH, "zh": CHINESE}
"""The languages of menus and descriptions by Telegram's code for them; None is for all others."""

logger = logging.getLogger(__name__)


def commands(
    texts: Texts, *, for_admin: bool = False, in_group: bool = False, for_group_admin: bool = False
) -> dict[str, str]:
    """What each command does, by its name."""
    known = {
        name: description for name, description in COMMANDS.items() if not in_group or name not in PRIVATE_COMMANDS
    }
    known |= GROUP_ADMIN_COMMANDS if for_group_admin else {}
    known |= ADMIN_COMMANDS if for_admin else {}
    return {name: texts.gettext(description) for name, description in known.items()}


async def offer_commands(bot: Bot) -> None:
    """Fill the menus and descriptions that everyone sees, where they are not what they should be."""
    for code, language in MENU_LANGUAGES.items():
        texts = texts_in(language)
        groups, administrators = BotCommandScopeAllGroupChats(), BotCommandScopeAllChatAdministrators()
        await _set_menu(bot, BotCommandScopeAllPrivateChats(), code, commands(texts))
        await _set_menu(bot, groups, code, commands(texts, in_group=True))
        await _set_menu(bot, administrators, code, commands(texts, in_group=True, for_group_admin=True))
        description, short_description = texts.gettext(DESCRIPTION), texts.gettext(SHORT_DESCRIPTION)
        try:
            if (await bot.get_my_description(code)).description != description:
                await bot.set_my_description(description, code)
            if (await bot.get_my_short_description(code)).short_description != short_description:
                await bot.set_my_short_description(short_description, code)
        except TelegramError as error:
            logger.warning("no description in %s: %s", language, error)


async def offer_commands_to(bot: Bot, user_id: int, language: str | None, *, is_admin: bool) -> None:
    """Fill the menu of one user's private chat in `language`, or in what Telegram shows them where that is None."""
    for code, shown in MENU_LANGUAGES.items():
        described = commands(texts_in(language or shown), for_admin=is_admin)
        await _set_menu(bot, BotCommandScopeChat(user_id), code, described)


def is_menu_theirs(user: User | None, language: str) -> bool:
    """Whether everyone's menu is in `language` for this user."""
    is_chinese = language_of(user.language_code if user else None) != ENGLISH
    return language == (CHINESE if is_chinese else ENGLISH)


async def _set_menu(bot: Bot, scope: BotCommandScope, code: str | None, described: dict[str, str]) -> None:
    """A menu that stays as it was stops nothing."""
    try:
        shown = await bot.get_my_commands(scope, code)
        if [(command.command, command.description) for command in shown] != list(described.items()):
            await bot.set_my_commands(list(described.items()), scope, code)
    except TelegramError as error:
        logger.warning("no command menu for %s: %s", scope.to_dict(), error)


async def start(update: Update, context: BotContext) -> None:
    await context.reply(
        context.texts.gettext(
            "<b>读问</b> answers questions about a Chinese paragraph with its own words. "
            "It makes nothing up: where the paragraph does not say, it tells you so.\n\n"
            "1. Set a paragraph: <code>/context</code> and the text.\n"
            "2. Ask: <code>/ask</code> and your question; in a private chat just write it.\n\n"
            "/help tells more."
        )
    )
    user, chat = update.effective_user, context.message.chat
    if user and chat.type == chat.PRIVATE and not is_menu_theirs(user, context.language):
        await offer_commands_to(context.bot, user.id, context.language, is_admin=context.is_admin)


async def help_(update: Update, context: BotContext) -> None:
    chat = context.message.chat
    in_group = chat.type != chat.PRIVATE
    described = commands(context.texts, for_admin=context.is_admin, in_group=in_group, for_group_admin=in_group)
    lines = "\n".join(f"/{name} – {description}" for name, description in described.items())
    advice = context.texts.gettext(
        "In a private chat every message without a command is a question; in a group use /ask.\n"
        "/context and /append also take the message that you reply to. When Telegram splits a long text that you send "
        "with /context, I join its parts.\n"
        "A file can be the paragraph, too (.txt, .md, .pdf, .docx): send it with the caption /context, or reply to it "
        "with /context.\n"
        "Reply to an answer to ask on about its paragraph. Edit a question, and it is answered anew."
    )
    if in_group and not context.bot.can_read_all_group_messages:
        advice += "\n" + fill(
            context.texts.gettext(
                "Only commands, replies to my messages and, where Telegram lets them through, messages that begin "
                "with @{username} reach me here: I do not see what else this group writes."
            ),
            username=context.bot.username,
        )
    elif not in_group and context.bot.supports_inline_queries:
        advice += "\n" + fill(
            context.texts.gettext(
                "In any other chat, write @{username} and a question: I answer from the paragraph of this chat."
            ),
            username=context.bot.username,
        )
    await context.reply(f"{lines}\n\n{advice}")


async def unknown_command(update: Update, context: BotContext) -> None:
    command = command_in(context.message.text or "")
    text = context.texts.gettext("I do not know the command /{name}. /help lists those that I know.")
    await context.reply(fill(text, name=command.name if command else ""))


async def not_text(update: Update, context: BotContext) -> None:
    await context.reply(
        context.texts.gettext(
            "I can only read text. Send a paragraph with /context, or write your question as a message."
        )
    )
