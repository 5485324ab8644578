"""Question + context → overlapping windows of tokens that know where in the context they stand.

Question and context are tokenized apart and put together here: a context's tokens serve all questions about it.
Knows tokenizers, not models; what the scores mean is left to `spans`.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from qa_engine.errors import CheckpointBroken

log = logging.getLogger(__name__)

MAX_QUESTION_TOKENS = 64
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class WindowSizes:
    """Lengths in tokens. `stride` is what two neighbouring windows share, as in transformers."""

    max_tokens: int = 512
    stride: int = 128


@dataclass(frozen=True)
class Tokens:
    """A text's tokens without special ones; `starts[i]:ends[i]` are token i's characters in that text."""

    ids: NDArray[np.int32]  # [token]
    starts: NDArray[np.int32]  # [token]
    ends: NDArray[np.int32]  # [token]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Window:
    """One input of the model: the question, then context tokens `first` … `first + count - 1`."""

    input_ids: NDArray[np.int32]  # [token]
    token_type_ids: NDArray[np.int32]  # [token]
    context_at: int  # position of the first context token in input_ids
    first: int
    count: int
    prior: float = 0.0
    """What the scores of its spans are raised by: of some windows it is known before reading that they fit better."""

    def __len__(self) -> int:
        return len(self.input_ids)


class WindowMaker:
    """Cuts contexts into windows in one tokenizer's pair layout, e.g. `[CLS] question [SEP] context [SEP]`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sizes: WindowSizes) -> None:
        if not tokenizer.is_fast:
            raise CheckpointBroken("the tokenizer gives no character offsets: a fast one (tokenizer.json) is needed")
        self.tokenizer = tokenizer
        self.sizes = sizes
        encoding = tokenizer("问", "答").encodings[0]
        belongs_to = np.array([-1 if part is None else part for part in encoding.sequence_ids])
        question_at, context_at = np.flatnonzero(belongs_to == 0), np.flatnonzero(belongs_to == 1)
        if not (len(question_at) and len(context_at) and question_at[0] > 0):
            raise CheckpointBroken("the tokenizer does not lay out pairs as [CLS] question [SEP] context [SEP]")
        ids, types = np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.int32)
        self._prefix = ids[: question_at[0]]
        self._middle = ids[question_at[-1] + 1 : context_at[0]]
        self._suffix = ids[context_at[-1] + 1 :]
        self._read_as = np.arange(max(tokenizer.get_vocab().values()) + 1, dtype=np.int32)
        if tokenizer.unk_token_id is not None:  # whoever writes "</s>" ends nothing
            self._read_as[tokenizer.all_special_ids] = tokenizer.unk_token_id
        self._question_type, self._context_type = types[0], types[context_at[0]]
        self._special_count = len(self._prefix) + len(self._middle) + len(self._suffix)
        if sizes.max_tokens - self._special_count - MAX_QUESTION_TOKENS <= max(sizes.stride, MAX_QUESTION_TOKENS):
            raise CheckpointBroken(
                f"windows of {sizes.max_tokens} tokens leave no room for a question of {MAX_QUESTION_TOKENS} "
                f"and a stride of {sizes.stride}"
            )

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Whole texts, never truncated; offsets count Python characters of the text as given.

        The model's own signs, such as "[SEP]", are unknown words where a text holds them.
        """
        # Python strings can hold lone surrogates, tokenizers cannot: one character for another keeps the offsets.
        valid = [_SURROGATE.sub("\ufffd", text) for text in texts]
        batch = self.tokenizer(valid, add_special_tokens=False, truncation=False, padding=False, verbose=False)
        tokens = []
        for encoding in batch.encodings:
            offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            ids = self._read_as[np.array(encoding.ids, np.int32)]
            tokens.append(Tokens(ids, offsets[:, 0], offsets[:, 1]))
        return tokens

    def tokenize_question(self, question: str) -> Tokens:
        """The last MAX_QUESTION_TOKENS: what is asked stands at the end of a long question, after what led to it.

        What is cut off is logged; the context never pays for a long question.
        """
        (tokens,) = self.tokenize([question])
        if len(tokens) > MAX_QUESTION_TOKENS:
            log.warning("a question of %d tokens was cut to its last %d", len(tokens), MAX_QUESTION_TOKENS)
        return Tokens(*(part[-MAX_QUESTION_TOKENS:] for part in (tokens.ids, tokens.starts, tokens.ends)))

    def room(self, question: Tokens) -> int:
        """How many context tokens a window with this question holds."""
        return self.sizes.max_tokens - self._special_count - len(question)

    def window(
        self, question: Tokens, context: Tokens, first: int, room: int | None = None, prior: float = 0.0
    ) -> Window:
        """The window whose first context token is `first`, as long as it can be, or with `room` context tokens."""
        part = context.ids[first : first + (self.room(question) if room is None else room)]
        ids = np.concatenate([self._prefix, question.ids, self._middle, part, self._suffix])
        context_at = len(self._prefix) + len(question) + len(self._middle)
        types = np.full(len(ids), self._question_type, np.int32)
        types[context_at:] = self._context_type
        return Window(ids, types, context_at, first, len(part), prior)

    def windows(self, question: Tokens, context: Tokens) -> list[Window]:
        """Windows that together hold every context token. All are full where the context is long enough."""
        last = max(0, len(context) - self.room(question))
        step = self.room(question) - self.sizes.stride
        return [self.window(question, context, at) for at in [*range(0, last, step), last]]
