"""/start, /help, and what the bot says to a message that is not for it to answer."""

from telegram import Update

from bot.handlers.conversation import BotContext, command_in
from bot.replies import fill
from bot.texts import N_, Texts

COMMANDS = {
    "context": N_("set the paragraph, or show the one that is set"),
    "append": N_("add to the paragraph"),
    "contexts": N_("the texts that are kept: switch, rename, delete"),
    "ask": N_("ask about the paragraph"),
    "clear": N_("delete the paragraph and all questions"),
    "privacy": N_("what is kept, and whether it may teach the model"),
    "forget": N_("delete all that is known of this chat"),
    "status": N_("the model, and what it has done"),
    "help": N_("how to use this bot"),
    "start": N_("what this bot is"),
}
ADMIN_COMMANDS = {"reload": N_("look for a new checkpoint now")}


def commands(texts: Texts, *, for_admin: bool) -> dict[str, str]:
    """What each command does, by its name."""
    known = COMMANDS | ADMIN_COMMANDS if for_admin else COMMANDS
    return {name: texts.gettext(description) for name, description in known.items()}


async def start(update: Update, context: BotContext) -> None:
    await context.reply(
        context.texts.gettext(
            "<b>读问</b> answers questions about a paragraph with the paragraph's own words. "
            "It makes nothing up: where the paragraph does not say, it tells you so.\n\n"
            "1. Set a paragraph: <code>/context</code> and the text.\n"
            "2. Ask: <code>/ask</code> and your question; in a private chat just write it.\n\n"
            "/help tells more."
        )
    )


async def help_(update: Update, context: BotContext) -> None:
    described = commands(context.texts, for_admin=context.is_admin)
    lines = "\n".join(f"/{name} – {description}" for name, description in described.items())
    advice = context.texts.gettext(
        "In a private chat every message without a command is a question; in a group use /ask.\n"
        "/context and /append also take the message that you reply to. Telegram splits long texts: "
        "set the first part with /context, then reply to every other part with /append.\n"
        "Edit a question, and it is answered anew."
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
