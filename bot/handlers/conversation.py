"""What all handlers share: the parts of the bot, the message at hand, the command in it.

Commands are read from the text itself, not from Telegram's entities: one of these ends at white space, and
nobody who writes Chinese puts any (`/ask詹姆斯有多高？`).
"""

import asyncio
import re
import unicodedata
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import Any, Self

from telegram import ForceReply, InlineKeyboardMarkup, Message, MessageEntity, Update, User
from telegram.ext import Application, CallbackContext, ExtBot, filters

from bot.handlers.remembering import GroupAdmins, LatestQueries
from bot.replies import readable
from bot.settings import Settings
from bot.store import Author, Chat, Store
from bot.texts import CHINESE, Texts, language_of, texts_in
from bot.transport import Pace
from qa_engine import Engine
from qa_engine.reloading import CheckpointWatcher

MAX_FILES_AT_ONCE = 2

COMMAND_NAMES = (
    *("context", "append", "contexts", "ask", "clear", "privacy", "forget", "status", "language", "help", "start"),
    *("settings", "reload"),
)
"""All commands; what they do stands in `bot.handlers.introducing`."""
TAKE_TEXT = ("context", "append", "ask")

_COMMAND = re.compile(r"/([A-Za-z0-9_]{1,64})(?:@([A-Za-z0-9_]+))?\s*")
_MENTION = re.compile(r"@([A-Za-z0-9_]+)[\s,:，：、]*")
_KEYCAP = re.compile("[0-9#*]\ufe0f?\u20e3")
_PURPOSE = re.compile(r"#([a-z]+)-([0-9]{1,19})$")


@dataclass(frozen=True)
class Parts:
    """What the handlers work with.

    `admin_languages` holds the last seen language of each admin. `group_admins` and `latest_queries` save work;
    a process without them would do no harm.
    """

    settings: Settings
    store: Store
    engine: Engine
    watcher: CheckpointWatcher
    admin_languages: dict[int, str] = field(default_factory=dict)
    group_admins: GroupAdmins = field(default_factory=GroupAdmins)
    latest_queries: LatestQueries = field(default_factory=LatestQueries)
    files_in_turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_FILES_AT_ONCE))

    @cached_property
    def user_pace(self) -> Pace:
        return Pace(self.settings.max_user_messages_a_minute)

    @cached_property
    def chat_pace(self) -> Pace:
        return Pace(self.settings.max_chat_messages_a_minute)

    def is_admin(self, user: User | None) -> bool:
        """Whether the user is one of those who run the bot."""
        return user is not None and user.id in self.settings.admin_user_ids

    async def admin_texts(self, user_id: int) -> Texts:
        """The texts for a message to an admin out of the blue."""
        chosen = (await self.store.standing(user_id, None)).language
        return texts_in(chosen or self.admin_languages.get(user_id, CHINESE))


class BotContext(CallbackContext[ExtBot[int], dict[Any, Any], dict[Any, Any], Parts]):
    """The second argument of every handler: the parts, and the message that is handled or whose button was pressed."""

    message: Message
    texts: Texts
    language: str

    @classmethod
    def from_update(cls, update: object, application: Application[Any, Any, Any, Any, Any, Any]) -> Self:
        """Python-telegram-bot's hook. Only updates with a message that can be read have `context.message`."""
        context = super().from_update(update, application)
        if isinstance(update, Update):
            button = update.callback_query
            if (button is None or isinstance(button.message, Message)) and update.effective_message:
                context.message = update.effective_message
            user = update.effective_user
            context.speak(language_of(user.language_code if user else None), user)
        return context

    def speak(self, language: str, user: User | None) -> None:
        """Answer this update in `language`; an admin is told of checkpoints in it, too."""
        self.language = language
        self.texts = texts_in(language)
        if user and self.parts.is_admin(user):
            self.parts.admin_languages[user.id] = language

    @property
    def parts(self) -> Parts:
        return self.bot_data

    @property
    def is_admin(self) -> bool:
        return self.parts.is_admin(self.message.from_user)

    async def reply(self, html: str, buttons: InlineKeyboardMarkup | None = None) -> Message:
        """Answer the message at hand."""
        return await self.message.reply_text(html, reply_markup=buttons)

    async def ask_back(
        self, html: str, purpose: str, number: int = 0, buttons: InlineKeyboardMarkup | None = None
    ) -> None:
        """Ask for something; the reply to that has `purpose_of` it. What it is for stands in a link nobody sees."""
        link = f'<a href="https://t.me/{self.bot.username}#{purpose}-{number}">\u200b</a>'
        await self.message.reply_text(link + html, reply_markup=buttons or ForceReply(selective=True))


BotApplication = Application[ExtBot[int], BotContext, dict[Any, Any], dict[Any, Any], Parts, None]


@dataclass(frozen=True)
class Command:
    """`/name@username payload`; the payload is untouched but for white space before it."""

    name: str
    username: str | None
    payload: str


class Flaw(Enum):
    """Why nothing can be read from a text."""

    EMPTY = auto()
    INVISIBLE = auto()
    WORDLESS = auto()


class IsCommand(filters.MessageFilter):
    """Lets through what begins with a command, whoever it is for."""

    def filter(self, message: Message) -> bool:
        return command_in(message.text or "") is not None


class ToMe(filters.MessageFilter):
    """Lets through what begins with a command for this bot: one of `names`, or any where none is given.

    `explicit`: only commands that name this bot, as in `/help@this_bot`. `in_caption`: a file's command.
    """

    def __init__(self, *names: str, explicit: bool = False, in_caption: bool = False) -> None:
        super().__init__()
        self._names = names
        self._explicit = explicit
        self._in_caption = in_caption

    def filter(self, message: Message) -> bool:
        command = command_in((message.caption if self._in_caption else message.text) or "")
        if command is None or (self._names and command.name not in self._names):
            return False
        if command.username is None:
            return not self._explicit
        return command.username.lower() == message.get_bot().username.lower()


class RepliesToMe(filters.MessageFilter):
    """Lets through replies to messages of this bot: those that asked for `purpose`, or all where none is given."""

    def __init__(self, purpose: str | None = None) -> None:
        super().__init__()
        self._purpose = purpose

    def filter(self, message: Message) -> bool:
        if self._purpose is not None:
            return purpose_of(message)[0] == self._purpose
        replied_to = message.reply_to_message
        return replied_to is not None and _is_mine(replied_to)


class RepliesToFile(filters.MessageFilter):
    """Lets through a command without text that replies to a file."""

    def filter(self, message: Message) -> bool:
        replied_to = message.reply_to_message
        return replied_to is not None and replied_to.document is not None and not payload(message)


class Mentioned(filters.MessageFilter):
    """Lets through what is written to this bot by its name: `@this_bot 谁？`, in a text without a command."""

    def filter(self, message: Message) -> bool:
        return _unmentioned(message) is not None


class ThroughMe(filters.MessageFilter):
    """Lets through what a user has sent out of this bot's inline answers: the bot's own words."""

    def filter(self, message: Message) -> bool:
        return message.via_bot is not None and message.via_bot.id == message.get_bot().id


def command_in(text: str) -> Command | None:
    """The command that `text` begins with, its name in lower case.

    The name of one that takes a text ends before Latin letters and digits, too, where Chinese follows them:
    `/ask2016年谁夺冠？`. Else they belong to the name, as in `/ask2`, which may be another bot's.
    """
    match = _COMMAND.match(text)
    if match is None:
        return None
    name, username = match[1].lower(), match[2]
    known = max((known for known in COMMAND_NAMES if name.startswith(known)), key=len, default="")
    if known in TAKE_TEXT and username is None and not text.split(maxsplit=1)[0].isascii():
        return Command(known, None, text[match.end() if name == known else len(f"/{known}") :])
    return Command(name, username, text[match.end() :])


def payload(message: Message) -> str:
    """What follows the command or this bot's name that `message` begins with; else the whole text."""
    text = message.text or ""
    if command := command_in(text):
        return readable(command.payload)
    rest = _unmentioned(message)
    return readable(text if rest is None else rest)


def _unmentioned(message: Message) -> str | None:
    """What is left of a text that begins with this bot's name, or None where it does not."""
    text = message.text or ""
    match = _MENTION.match(text)
    is_me = match is not None and match[1].lower() == message.get_bot().username.lower()
    return text[match.end() :] if match and is_me else None


def given_text(message: Message) -> str | None:
    """What a command is to work on: its payload, else the text or caption of the message that it replies to.

    "" for a reply to a message without text; None when there is neither payload nor reply.
    """
    if text := payload(message):
        return text
    replied_to = message.reply_to_message
    # In a forum, a message that replies to none is sent as a reply to the opening of its topic.
    if replied_to is None or replied_to.forum_topic_created:
        return None
    return readable(replied_to.text or replied_to.caption or "")


def purpose_of(message: Message) -> tuple[str | None, int]:
    """The purpose and the number of `ask_back`, where `message` replies to what it sent; None and 0 elsewhere."""
    replied_to = message.reply_to_message
    if replied_to is not None and _is_mine(replied_to):
        for entity in replied_to.entities:
            if entity.type == MessageEntity.TEXT_LINK and (match := _PURPOSE.search(entity.url or "")):
                return match[1], int(match[2])
    return None, 0


def _is_mine(message: Message) -> bool:
    return message.from_user is not None and message.from_user.id == message.get_bot().id


def topic_of(message: Message) -> int:
    """The topic of a forum that `message` stands in; 0 outside of topics."""
    return message.message_thread_id or 0 if message.is_topic_message else 0


def flaw_of(text: str) -> Flaw | None:
    """Why no question and no paragraph can be `text`; None where it has at least a letter or a number."""
    if not text.strip():
        return Flaw.EMPTY
    if any(unicodedata.category(character)[0] in "LN" for character in _KEYCAP.sub("", text)):
        return None
    if all(character in "\ufffd" or unicodedata.category(character)[0] in "CZ" for character in text):
        return Flaw.INVISIBLE
    return Flaw.WORDLESS


def chat_of(message: Message) -> Chat:
    """The chat of `message`, as the store knows chats."""
    return Chat(message.chat.id, message.chat.type, message.chat.title)


def author_of(message: Message) -> Author:
    """Who wrote `message`: a user, or the group or channel that someone speaks for."""
    sender = message.sender_chat or message.from_user or message.chat
    name = sender.full_name if isinstance(sender, User) else sender.effective_name
    return Author(sender.id, name or str(sender.id))
