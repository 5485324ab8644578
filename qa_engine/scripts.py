"""Traditional and Simplified Chinese: a question is put into the script of the text that it is about.

A model matches characters; asked about 「臺灣」 with “台湾” it finds less. Only what the model is asked is converted:
the context, its offsets and every quote stay the user's own. The conversions are OpenCC's, and so is the knowledge
which character is written otherwise in the other script; what a tokenizer makes of them is left to `windows`.
"""

from enum import Enum
from functools import cache, partial
from unicodedata import normalize

from opencc import OpenCC

DECIDING_CHARACTERS = 5_000
"""How much of a text is looked at to tell its script: in Chinese prose every fifth character tells."""

_CHINESE = "".join(map(chr, [*range(0x3400, 0x4DC0), *range(0x4E00, 0xA000)]))


class Script(Enum):
    """How Chinese is written; the value is OpenCC's conversion into it. Taiwan's forms, as most texts use them."""

    SIMPLIFIED = "t2s"
    TRADITIONAL = "s2tw"


def in_script(question: str, wanted: Script | None) -> str:
    """`question` in the script that is `wanted`, where it is certain that it is written in the other one."""
    if wanted is None or script_of(question) in (None, wanted):
        return question
    return converted(question, wanted)


def converted(text: str, script: Script) -> str:
    """`text`, which is in the other script, in `script`; mostly as long as before. A lone surrogate becomes "?"."""
    other: str = _converter(script).convert(text.encode(errors="replace").decode())
    return other


def script_of(text: str) -> Script | None:
    """The script of which `text` has more characters that the other one lacks; None where that is a draw."""
    only_simplified, only_traditional = _telling()
    beginning = text[:DECIDING_CHARACTERS]
    simplified = sum(character in only_simplified for character in beginning)
    traditional = sum(character in only_traditional for character in beginning)
    if simplified == traditional:
        return None
    return Script.SIMPLIFIED if simplified > traditional else Script.TRADITIONAL


def folded(text: str) -> str:
    """`text` for comparing: Simplified, half-width, lower case; one character for one, so that offsets hold."""
    return "".join(map(_fold, text))


@cache
def _fold(character: str) -> str:
    for form in (partial(normalize, "NFKC"), str.lower, _simplified):
        folded_form = form(character)
        character = folded_form if len(folded_form) == 1 else character
    return character


@cache
def _telling() -> tuple[frozenset[str], frozenset[str]]:
    """The characters that only Simplified, and only Traditional Chinese has.

    Many are written otherwise in one of their meanings and alike in another (后, 里, 台): the two scripts' own
    character sets, GB 2312 and Big5, tell these apart from those that a script lacks.
    """
    return (
        frozenset(character for character in _forms_in(Script.TRADITIONAL) if not _is_in("big5", character)),
        frozenset(character for character in _forms_in(Script.SIMPLIFIED) if not _is_in("gb2312", character)),
    )


def _simplified(character: str) -> str:
    return _forms_in(Script.SIMPLIFIED).get(character, character)


@cache
def _forms_in(script: Script) -> dict[str, str]:
    """Every character that is written otherwise in `script`, with its form there."""
    forms = _converter(script).convert("\n".join(_CHINESE)).split("\n")
    pairs = zip(_CHINESE, forms, strict=True)
    return {character: form for character, form in pairs if form != character and len(form) == 1}


@cache
def _converter(script: Script) -> OpenCC:
    return OpenCC(script.value)


def _is_in(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
