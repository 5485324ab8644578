"""Texts → windows of tokens that know their words → windows with some words masked, drawn anew in every epoch.

Whole words are masked (Cui et al. 2021, "Pre-Training with Whole Word Masking for Chinese BERT"): a character is easily
guessed from the rest of its word, a word only from what is said. Which tokens a word touches follows from character
offsets, so that vocabularies of characters and of pieces that cross word borders are masked by the same rule.
Knows tokenizers, not models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import rjieba
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from qa_engine.errors import CheckpointBroken

MASKED_SHARE = 0.15  # of the tokens, as in BERT; of these 80 % show the mask, 10 % another token, 10 % themselves
_SHOW_MASK, _SHOW_OTHER = 0.8, 0.9
_NO_LABEL = -100  # what `cross_entropy` passes over
_LINES_AT_ONCE = 1000


@dataclass(frozen=True)
class TextWindow:
    """Neighbouring tokens of a text, without special ones; token i touches words `first_words[i]` … `last_words[i]`."""

    ids: NDArray[np.int32]  # [token]
    first_words: NDArray[np.int32]  # [token], never falling
    last_words: NDArray[np.int32]  # [token], never falling


@dataclass(frozen=True)
class MaskedWindow:
    """One input of the model and what stood there: a label for each masked token, -100 for the others."""

    input_ids: NDArray[np.int64]  # [token]
    labels: NDArray[np.int64]  # [token]


@dataclass(frozen=True)
class MaskingVocabulary:
    """A tokenizer's tokens by what masking does with them."""

    prefix: tuple[int, ...]  # before a text, e.g. [CLS]
    suffix: tuple[int, ...]  # behind it, e.g. [SEP]
    mask: int
    unknown: int | None
    ordinary: NDArray[np.int64]  # what may be shown in place of another token

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "MaskingVocabulary":
        """Raises CheckpointBroken for a tokenizer without offsets or without a mask."""
        if not tokenizer.is_fast:
            raise CheckpointBroken("the tokenizer gives no character offsets: a fast one (tokenizer.json) is needed")
        if not isinstance(tokenizer.mask_token_id, int):
            raise CheckpointBroken("the tokenizer has no mask token")
        encoding = tokenizer("问").encodings[0]
        text_at = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
        special = set(tokenizer.all_special_ids)
        return cls(
            prefix=tuple(encoding.ids[: text_at[0]]),
            suffix=tuple(encoding.ids[text_at[-1] + 1 :]),
            mask=tokenizer.mask_token_id,
            unknown=tokenizer.unk_token_id,
            ordinary=np.array([token for token in range(len(tokenizer)) if token not in special]),
        )


def text_windows(text: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[TextWindow]:
    """A whole text in windows of at most `max_tokens`, none twice; its lines follow each other within a window."""
    ids, first_words, last_words = list[NDArray[np.int32]](), list[NDArray[np.int32]](), list[NDArray[np.int32]]()
    words = 0
    # Lone surrogates, which JSON can hold, are in no tokenizer's alphabet.
    lines = [line for line in text.encode("utf-8", "replace").decode().splitlines() if line.strip()]
    for at in range(0, len(lines), _LINES_AT_ONCE):
        some = lines[at : at + _LINES_AT_ONCE]
        batch = tokenizer(some, add_special_tokens=False, truncation=False, padding=False, verbose=False)
        for line, encoding in zip(some, batch.encodings, strict=True):
            if not len(encoding.ids):
                continue
            word_of = words + _word_of_character(line)
            words = int(word_of[-1]) + 1
            offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            starts = offsets[:, 0].clip(max=len(line) - 1)
            ends = np.maximum(offsets[:, 1], starts + 1)
            ids.append(np.array(encoding.ids, np.int32))
            # NFKC may put marks out of order by a character; searching needs them in order.
            first_words.append(np.maximum.accumulate(word_of[starts]))
            last_words.append(np.maximum.accumulate(word_of[ends - 1]))
    if not ids:
        return []
    columns = [np.concatenate(parts) for parts in (ids, first_words, last_words)]
    return [
        TextWindow(*(column[at : at + max_tokens] for column in columns))
        for at in range(0, len(columns[0]), max_tokens)
    ]


def _word_of_character(line: str) -> NDArray[np.int32]:
    """The number of the word that each character belongs to."""
    words = rjieba.cut(line)
    return np.repeat(np.arange(len(words), dtype=np.int32), [len(word) for word in words])


class MaskedWindows(Dataset[MaskedWindow]):
    """A map-style data set: every window once an epoch. What is masked is a function of (seed, epoch, index) alone."""

    def __init__(self, windows: Sequence[TextWindow], vocabulary: MaskingVocabulary, *, seed: int) -> None:
        self.windows = windows
        self.vocabulary = vocabulary
        self.seed = seed
        self.epoch = 0  # set from outside when one begins
        special = len(vocabulary.prefix) + len(vocabulary.suffix)
        self.lengths = [len(window.ids) + special for window in windows]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> MaskedWindow:
        draw = np.random.default_rng([self.seed, self.epoch, index])
        window, vocabulary = self.windows[index], self.vocabulary
        shown = window.ids.astype(np.int64)
        is_masked = masked_tokens(window, draw)
        if vocabulary.unknown is not None:  # nothing to learn there
            is_masked &= shown != vocabulary.unknown
        labels = np.where(is_masked, shown, _NO_LABEL)
        fate = draw.random(len(shown))
        shown = np.where(is_masked & (fate < _SHOW_MASK), vocabulary.mask, shown)
        other = draw.choice(vocabulary.ordinary, len(shown))
        shown = np.where(is_masked & (fate >= _SHOW_MASK) & (fate < _SHOW_OTHER), other, shown)
        before, behind = len(vocabulary.prefix), len(vocabulary.suffix)
        return MaskedWindow(
            np.concatenate([vocabulary.prefix, shown, vocabulary.suffix]).astype(np.int64),
            np.pad(labels, (before, behind), constant_values=_NO_LABEL),
        )


def masked_tokens(window: TextWindow, draw: np.random.Generator) -> NDArray[np.bool_]:
    """Which tokens to mask: all that touch a drawn word, for as many words as fit into the share; [token]."""
    is_masked = np.zeros(len(window.ids), np.bool_)
    left = max(1, round(MASKED_SHARE * len(window.ids)))
    for word in draw.permutation(np.arange(window.first_words[0], window.last_words[-1] + 1)):
        first = int(np.searchsorted(window.last_words, word, side="left"))
        beyond = int(np.searchsorted(window.first_words, word, side="right"))
        more = beyond - first - int(is_masked[first:beyond].sum())
        if more > left and is_masked.any():
            continue
        is_masked[first:beyond] = True
        left -= more
        if left <= 0:
            break
    return is_masked


def collate_masked(windows: Sequence[MaskedWindow], pad_id: int) -> dict[str, Tensor]:
    """A batch as the model takes it: input_ids, attention_mask, labels, all [window, token]."""
    shape = (len(windows), max(len(item.input_ids) for item in windows))
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, _NO_LABEL, dtype=torch.long)
    for row, item in enumerate(windows):
        length = len(item.input_ids)
        input_ids[row, :length] = torch.from_numpy(item.input_ids)
        attention_mask[row, :length] = 1
        labels[row, :length] = torch.from_numpy(item.labels)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
