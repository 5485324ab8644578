"""Exact match and F1 of CMRC 2018, on characters.

Follows the task's official script (`cmrc2018_evaluate.py`, Cui et al. 2019) in what it counts: text is lower-cased and
loses its punctuation; Chinese falls into characters, everything else into words as NLTK cuts them; F1 is taken over
the longest common run of these pieces. Knows strings only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from nltk.tokenize import NLTKWordTokenizer

_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")  # the official list: no ASCII , . ? !
_words = NLTKWordTokenizer()


@dataclass(frozen=True)
class Score:
    """Shares from 0 to 1."""

    em: float
    f1: float


def score(prediction: str, references: Sequence[str]) -> Score:
    """The best exact match and the best F1 over the references; without any, only the empty prediction is right."""
    if not references:
        right = float(not prediction)
        return Score(right, right)
    return Score(
        max(float(_plain(prediction) == _plain(reference)) for reference in references),
        max(_f1(_pieces(prediction), _pieces(reference)) for reference in references),
    )


def average(scores: Sequence[Score]) -> Score:
    """Mean EM and mean F1 of at least one score."""
    return Score(sum(one.em for one in scores) / len(scores), sum(one.f1 for one in scores) / len(scores))


def _plain(text: str) -> str:
    return "".join(character for character in text.lower().strip() if character not in _PUNCTUATION)


@lru_cache(maxsize=65536)
def _pieces(text: str) -> tuple[str, ...]:
    """Chinese characters one by one, the rest in words."""
    pieces: list[str] = []
    for is_chinese, run in groupby(_plain(text), lambda character: "\u4e00" <= character <= "\u9fa5"):
        text_run = "".join(run)
        pieces += text_run if is_chinese else _words.tokenize(text_run)
    return tuple(pieces)


def _f1(prediction: tuple[str, ...], reference: tuple[str, ...]) -> float:
    common = _longest_common_run(prediction, reference)
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def _longest_common_run(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    longest, row = 0, [0] * (len(second) + 1)  # row[j]: length of the common run that ends at second[j - 1]
    for piece in first:
        row = [0] + [before + 1 if piece == other else 0 for before, other in zip(row, second, strict=False)]
        longest = max(longest, *row)
    return longest
