"""A long document's passages, ranked for a question: what is worth reading, so that cost does not grow with length.

BM25 over pairs of characters, which needs no word borders. Knows texts and token positions, no model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import bm25s
import numpy as np

from qa_engine.scripts import folded
from qa_engine.windows import Tokens

READ_WHOLE_TOKENS = 4_000
"""Up to this length a context is read from beginning to end: longer than any message that Telegram carries."""

PASSAGE_TOKENS = 384
PASSAGE_STEP = 128
"""From one passage's beginning to the next one's: they overlap, so that one of them is about what a question asks."""

PASSAGES_READ = 8
PRIOR_WEIGHT = 0.5
"""Of a passage's BM25 score beside its spans' scores. Chosen of 0 to 1.5 by 150 questions about 848 joined articles of
CMRC 2018's development set: F1 77.5 → 82.5, and 72.6 → 80.0 with 150 others (of all 300 on the right article: 85.1)."""


@dataclass(frozen=True)
class Passage:
    """A place to read. As BM25 adds up evidence, `prior` is what its spans are worth before they are read."""

    first: int
    """The first token of its window."""
    prior: float
    """Of the best passage 0, of others less."""


class Passages:
    """An index over one text, for any number of questions. Building it takes about two seconds a million characters."""

    def __init__(self, text: str, tokens: Tokens) -> None:
        self._firsts = np.arange(0, len(tokens), PASSAGE_STEP)
        text = folded(text)
        ends = np.minimum(self._firsts + PASSAGE_TOKENS, len(tokens)) - 1
        spans = zip(tokens.starts[self._firsts].tolist(), tokens.ends[ends].tolist(), strict=True)
        self._length = len(tokens)
        self._index = bm25s.BM25()
        self._index.index([list(_pairs(text[start:end])) for start, end in spans], show_progress=False)

    def best(self, question: str, room: int) -> list[Passage]:
        """The PASSAGES_READ places to read for a question, best first, where a window holds `room` tokens.

        Windows overlap by half at most. Of a text in which nothing of the question stands, the beginning is read.
        """
        known = [pair for pair in _pairs(folded(question)) if pair in self._index.vocab_dict]
        scores = self._index.get_scores(known) if known else np.zeros(len(self._firsts))
        order = np.argsort(-scores, kind="stable")
        highest = float(scores[order[0]])
        firsts = np.clip(self._firsts + (PASSAGE_TOKENS - room) // 2, 0, max(0, self._length - room))
        best: list[Passage] = []
        for first, score in zip(firsts[order].tolist(), scores[order].tolist(), strict=True):
            if all(abs(first - chosen.first) >= room // 2 for chosen in best):
                best.append(Passage(first, PRIOR_WEIGHT * (score - highest)))
            if len(best) == PASSAGES_READ:
                break
        return best


def _pairs(text: str) -> Iterator[str]:
    """Neighbouring characters."""
    return (text[place : place + 2] for place in range(max(1, len(text) - 1)))
