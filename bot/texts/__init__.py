"""What the bot says, in the user's language.

The English sentences stand in the code, where they are said; a catalogue translates them. Catalogues are
gettext's `.po` files, compiled in memory when first needed, so that no compiled file can fall behind its
source. Escaping and lengths are left to `bot.replies`.
"""

from functools import cache
from gettext import GNUTranslations
from gettext import NullTranslations as Texts
from importlib.resources import files
from io import BytesIO

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

__all__ = ["CHINESE", "ENGLISH", "LANGUAGES", "TRADITIONAL", "Texts", "language_of", "texts_in"]

CHINESE = "zh_Hans"
TRADITIONAL = "zh_Hant"
ENGLISH = "en"
LANGUAGES = {CHINESE: "简体中文", TRADITIONAL: "繁體中文", ENGLISH: "English"}
"""What each language is called by those who speak it."""

_WRITE_TRADITIONAL = {"hant", "tw", "hk", "mo"}


def language_of(language_code: str | None) -> str:
    """The bot's language for a Telegram `language_code`: an IETF tag, or None where Telegram knows none.

    A script (`zh-Hans-HK`) says more than a region (`zh-HK`), and either more than Chinese alone.
    """
    language, *subtags = (language_code or "").lower().replace("_", "-").split("-")
    if not language.startswith("zh"):
        return ENGLISH
    return TRADITIONAL if _WRITE_TRADITIONAL.intersection(subtags) and "hans" not in subtags else CHINESE


@cache
def texts_in(language: str) -> Texts:
    """The texts in one of `LANGUAGES`; a sentence without a translation is said in English."""
    if language == ENGLISH:
        return Texts()
    source = files(__name__).joinpath(language, "LC_MESSAGES", "bot.po")
    compiled = BytesIO()
    with source.open("rb") as file:
        write_mo(compiled, read_po(file, locale=language, abort_invalid=True))
    compiled.seek(0)
    return GNUTranslations(compiled)


def N_(text: str) -> str:
    """Marks an English sentence that is translated later, where it is said."""
    return text
