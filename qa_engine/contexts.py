"""What is known of a context before any question: its tokens, its script, its passages. Kept for the next question.

Knows tokenizers and scripts, not models. The cache is bounded in bytes; what was used longest ago goes first.
"""

import sys
from dataclasses import dataclass
from threading import Lock

from cachetools import LRUCache

from qa_engine.passages import READ_WHOLE_TOKENS, Passages
from qa_engine.scripts import Script, in_script, script_of
from qa_engine.windows import Tokens, Window, WindowMaker

KEPT_BYTES = 128 * 1024 * 1024
_BYTES_A_TOKEN = 12  # id, start and end
_INDEX_BYTES_A_CHARACTER = 61
_VOCABULARY_BYTES_A_CHARACTER, _VOCABULARY_CHARACTERS = 200, 100_000
"""Postings grow with the text, the vocabulary less and less. By tracemalloc, 162 bytes a character of articles of
5,000, 120 of 100,000 (of random characters 222), 107 of 213,000, 61 of a million; the process grows by more: 190 to 280
up to 100,000."""


@dataclass(frozen=True)
class KnownContext:
    """A context's tokens and script, and its passages where it is too long to be read whole."""

    text: str
    tokens: Tokens
    script: Script | None
    passages: Passages | None

    @property
    def bytes(self) -> int:
        index = 0
        if self.passages:
            vocabulary = min(len(self.text), _VOCABULARY_CHARACTERS) * _VOCABULARY_BYTES_A_CHARACTER
            index = len(self.text) * _INDEX_BYTES_A_CHARACTER + vocabulary
        return sys.getsizeof(self.text) + len(self.tokens) * _BYTES_A_TOKEN + index


class Contexts:
    """Contexts by their text. Safe to use from several threads; two that ask for a new one at once both read it."""

    def __init__(self, window_maker: WindowMaker, kept_bytes: int = KEPT_BYTES) -> None:
        self._window_maker = window_maker
        self._kept: LRUCache[str, KnownContext] = LRUCache(kept_bytes, getsizeof=lambda known: known.bytes)
        self._lock = Lock()

    def windows(self, question: str, known: KnownContext) -> list[Window]:
        """The windows to read: all of them, or those around the passages that are worth it."""
        question = in_script(question, known.script)
        tokens = self._window_maker.tokenize_question(question)
        if not len(known.tokens):
            return []
        if known.passages is None:
            return self._window_maker.windows(tokens, known.tokens)
        best = known.passages.best(question, self._window_maker.room(tokens))
        return [self._window_maker.window(tokens, known.tokens, place.first, prior=place.prior) for place in best]

    def known(self, text: str) -> KnownContext:
        """The context, from the cache or read now."""
        with self._lock:
            known = self._kept.get(text)
        if known is None:
            known = self._read(text)
            self.keep(known)
        return known

    def keep(self, known: KnownContext) -> None:
        """Put it into the cache, in place of what is there; one that is larger than the cache is not kept."""
        if known.bytes <= self._kept.maxsize:
            with self._lock:
                self._kept[known.text] = known

    @property
    def kept_bytes(self) -> int:
        """What the cache holds by now, about."""
        return int(self._kept.currsize)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def _read(self, text: str) -> KnownContext:
        (tokens,) = self._window_maker.tokenize([text if text.strip() else ""])  # white space alone says nothing
        passages = Passages(text, tokens) if len(tokens) > READ_WHOLE_TOKENS else None
        return KnownContext(text, tokens, script_of(text), passages)
