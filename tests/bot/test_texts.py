"""Every sentence of the bot is translated into every language, and nothing else is in the catalogues."""

import re
from pathlib import Path
from string import Formatter

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import bot
from bot.texts import CHINESE, ENGLISH, LANGUAGES, TRADITIONAL, language_of, texts_in

FOLDER = Path(bot.__file__).parent
SAID = sorted({message for _, _, message, _, _ in extract_from_dir(FOLDER) if isinstance(message, str)})
TRANSLATED = [language for language in LANGUAGES if language != ENGLISH]
# A character of the other script has no code in these: a cheap way to see that none slipped in.
CHARACTER_SETS = {CHINESE: "gb2312", TRADITIONAL: "big5"}
SAID_ELSEWHERE = re.compile(
    "信息|文件|設置|服務器|用戶|默認|添加|程序|軟件|網絡|視頻|屏幕|搜索|菜單|查找|消息|私聊|置信"
)


def catalogue(language: str) -> Catalog:
    with (FOLDER / "texts" / language / "LC_MESSAGES" / "bot.po").open("rb") as file:
        return read_po(file, locale=language, abort_invalid=True)


CATALOGUES = {language: catalogue(language) for language in TRANSLATED}


def test_the_code_says_something() -> None:
    assert len(SAID) > 30


def test_every_folder_of_texts_is_a_language() -> None:
    assert sorted(
        path.name for path in (FOLDER / "texts").iterdir() if path.is_dir() and path.name[0] != "_"
    ) == sorted(TRANSLATED)


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_catalogue_has_what_the_code_says_and_no_more(language: str) -> None:
    entries = {str(message.id): message for message in CATALOGUES[language] if message.id}
    missing = [english for english in SAID if english not in entries or not entries[english].string]
    unused = [english for english in entries if english not in SAID]
    unsure = [english for english, message in entries.items() if message.fuzzy]
    told = "".join(
        f"\n{what}:\n" + "".join(f"  {english!r}\n" for english in found)
        for what, found in (("missing", missing), ("unused", unused), ("fuzzy", unsure))
        if found
    )
    assert not told, f"bot/texts/{language}/LC_MESSAGES/bot.po{told}"
    assert not CATALOGUES[language].obsolete


@pytest.mark.parametrize("english", SAID)
@pytest.mark.parametrize("language", TRANSLATED)
def test_a_sentence_is_translated_with_its_placeholders_and_tags(language: str, english: str) -> None:
    entry = CATALOGUES[language][english]
    assert entry is not None, "missing"
    chinese = str(entry.string)
    assert re.search("[\u4e00-\u9fff]", chinese)
    assert placeholders(chinese) == placeholders(english)
    assert sorted(re.findall("</?[a-z]+>", chinese)) == sorted(re.findall("</?[a-z]+>", english))
    assert commands(chinese) == commands(english)
    assert texts_in(language).gettext(english) == chinese
    assert texts_in(ENGLISH).gettext(english) == english


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_catalogue_is_written_in_its_own_script(language: str) -> None:
    said = "".join(str(message.string) for message in CATALOGUES[language] if message.id)
    said = said.replace("读问", "").replace("简体中文", "").replace("繁體中文", "")  # names stay as they are
    strange = {character for character in said if "\u3400" <= character <= "\u9fff" and not is_in(language, character)}
    assert strange == set()


def test_traditional_chinese_is_worded_as_in_taiwan() -> None:
    said = {str(message.string) for message in CATALOGUES[TRADITIONAL] if message.id}
    assert [text for text in said if SAID_ELSEWHERE.search(text)] == []


@pytest.mark.parametrize(("language", "says"), [(CHINESE, "把本聊天加入名单"), (TRADITIONAL, "把本聊天室加入名單")])
def test_it_is_the_chat_that_is_put_on_the_list_and_nobody_who_joins_it(language: str, says: str) -> None:
    assert says in texts_in(language).gettext("They can add this chat by its number: <code>{chat_id}</code>")


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("zh", CHINESE),
        ("zh-hans", CHINESE),
        ("ZH-CN", CHINESE),
        ("zh-SG", CHINESE),
        ("zh-Hans-HK", CHINESE),
        ("zh-hant", TRADITIONAL),
        ("zh-TW", TRADITIONAL),
        ("zh_HK", TRADITIONAL),
        ("zh-Hant-MO", TRADITIONAL),
        ("en", ENGLISH),
        ("de", ENGLISH),
        ("de-TW", ENGLISH),
        ("", ENGLISH),
        (None, ENGLISH),
    ],
)
def test_the_language_is_the_client_s_and_else_english(code: str | None, language: str) -> None:
    assert language_of(code) == language


def placeholders(template: str) -> list[tuple[str, str | None]]:
    return sorted((name, spec) for _, name, spec, _ in Formatter().parse(template) if name)


def commands(text: str) -> set[str]:
    return set(re.findall("(?<![<\\w])/[a-z]+", text))


def is_in(language: str, character: str) -> bool:
    try:
        character.encode(CHARACTER_SETS[language])
    except UnicodeEncodeError:
        return False
    return True
