"""Every sentence of the bot is translated, and nothing else is in the catalogue."""

import re
from pathlib import Path
from string import Formatter

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import bot
from bot.texts import CHINESE, ENGLISH, language_of, texts_in

FOLDER = Path(bot.__file__).parent
SAID = sorted({message for _, _, message, _, _ in extract_from_dir(FOLDER) if isinstance(message, str)})
with (FOLDER / "texts" / CHINESE / "LC_MESSAGES" / "bot.po").open("rb") as file:
    CATALOGUE = read_po(file, locale=CHINESE, abort_invalid=True)


def test_the_code_says_something() -> None:
    assert len(SAID) > 30


def test_the_catalogue_has_what_the_code_says_and_no_more() -> None:
    assert sorted(str(message.id) for message in CATALOGUE if message.id) == SAID
    assert not CATALOGUE.obsolete


@pytest.mark.parametrize("english", SAID)
def test_a_sentence_is_translated_with_its_placeholders_and_tags(english: str) -> None:
    entry = CATALOGUE[english]
    assert entry is not None
    assert not entry.fuzzy
    chinese = str(entry.string)
    assert re.search("[\u4e00-\u9fff]", chinese) or english == ""
    assert placeholders(chinese) == placeholders(english)
    assert sorted(re.findall("</?[a-z]+>", chinese)) == sorted(re.findall("</?[a-z]+>", english))
    assert texts_in(CHINESE).gettext(english) == chinese
    assert texts_in(ENGLISH).gettext(english) == english


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("zh", CHINESE),
        ("zh-hans", CHINESE),
        ("zh-TW", CHINESE),
        ("ZH-CN", CHINESE),
        ("en", ENGLISH),
        ("de", ENGLISH),
        ("", ENGLISH),
        (None, ENGLISH),
    ],
)
def test_chinese_is_spoken_to_chinese_clients_only(code: str | None, language: str) -> None:
    assert language_of(code) == language


def placeholders(template: str) -> list[tuple[str, str | None]]:
    return sorted((name, spec) for _, name, spec, _ in Formatter().parse(template) if name)
