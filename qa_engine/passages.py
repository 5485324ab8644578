"""A long document's passages, ranked for a question: what is worth reading, so that cost does not grow with length.

BM25 over pairs of characters, which needs no word borders. Knows texts and token positions, no model.
"""

from collections.abc import Iterator

import bm25s
import numpy as np

from qa_engine.windows import Tokens

READ_WHOLE_TOKENS = 4_000
"""Up to this length a context is read from beginning to end: longer than any message that Telegram carries."""

PASSAGE_TOKENS = 128
PASSAGES_READ = 8


class Passages:
    """An index over one text, for any number of questions. Building it takes about a second a million characters."""

    def __init__(self, text: str, tokens: Tokens) -> None:
        self._firsts = np.arange(0, len(tokens), PASSAGE_TOKENS)
        ends = np.minimum(self._firsts + PASSAGE_TOKENS, len(tokens)) - 1
        spans = zip(tokens.starts[self._firsts].tolist(), tokens.ends[ends].tolist(), strict=True)
        self._length = len(tokens)
        self._index = bm25s.BM25()
        self._index.index([list(_pairs(text[start:end])) for start, end in spans], show_progress=False)

    def best(self, question: str, room: int) -> list[range]:
        """The tokens to read for a question: around the PASSAGES_READ best passages, `room` tokens each.

        In the order of the text; neighbours that touch are one part. Where nothing of the question stands in the
        text, these are its first passages.
        """
        known = [pair for pair in _pairs(question) if pair in self._index.vocab_dict]
        scores = self._index.get_scores(known) if known else np.zeros(len(self._firsts))
        chosen = np.sort(np.argsort(-scores, kind="stable")[:PASSAGES_READ])
        parts: list[range] = []
        for first in self._firsts[chosen].tolist():
            start = max(0, min(first + PASSAGE_TOKENS // 2 - room // 2, self._length - room))
            end = min(start + room, self._length)
            if parts and start <= parts[-1].stop:
                parts[-1] = range(parts[-1].start, end)
            else:
                parts.append(range(start, end))
        return parts


def _pairs(text: str) -> Iterator[str]:
    """Neighbouring characters, in lower case."""
    text = text.lower()
    return (text[place : place + 2] for place in range(max(1, len(text) - 1)))
