"""Examples → labelled windows, one draw an epoch.

An answer is learned from one window around it, at a place drawn anew in every epoch: as many questions as possible for
the tokens that are paid for, and no fixed place to lean on. Some windows of the same contexts without the answer are
labelled with the null span, so that the scores of several windows can be compared when reading.
Uses the reader's own windows: a model reads with what it was trained with.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from qa_engine.scripts import in_script, script_of
from qa_engine.windows import Tokens, Window, WindowMaker
from trainer.squad import Example

_POOLED_BATCHES = 32  # batches are sorted by length within as many, and stay random otherwise


@dataclass(frozen=True)
class TokenizedExample:
    """An example's tokens, and its answer's first and last context token; None where the context does not say."""

    example: Example
    question: Tokens
    context: Tokens
    answer: tuple[int, int] | None

    @property
    def answer_tokens(self) -> int:
        """How many tokens the answer takes; 0 where there is none."""
        return self.answer[1] - self.answer[0] + 1 if self.answer else 0


@dataclass(frozen=True)
class LabelledWindow:
    """A window and the positions in it where the answer starts and ends; both 0 ([CLS]) for the null span."""

    window: Window
    start_token: int
    end_token: int


def tokenize_examples(examples: Sequence[Example], window_maker: WindowMaker) -> list[TokenizedExample]:
    """Leaves out examples whose answer does not stand in the context, or has no token."""
    tokenized = []
    contexts = list(dict.fromkeys(example.context for example in examples))
    context_tokens = dict(zip(contexts, window_maker.tokenize(contexts), strict=True))
    scripts = {context: script_of(context) for context in contexts}
    for example in examples:
        context = context_tokens[example.context]
        answer = None
        if not example.is_impossible:
            if example.span is None:
                continue
            touching = np.flatnonzero((context.starts < example.span.end) & (context.ends > example.span.start))
            if not len(touching):
                continue
            answer = (int(touching[0]), int(touching[-1]))
        if len(context):
            question = window_maker.tokenize_question(in_script(example.question, scripts[example.context]))
            tokenized.append(TokenizedExample(example, question, context, answer))
    return tokenized


class TrainingWindows(Dataset[LabelledWindow]):
    """A map-style data set: every example once an epoch, then `windows_without_answer` × examples of the longer ones
    again with a window that misses the answer. Which windows, and what `augment` makes of an example: a function of
    (seed, epoch, index) alone.
    """

    def __init__(
        self,
        examples: Sequence[TokenizedExample],
        window_maker: WindowMaker,
        *,
        windows_without_answer: float,
        seed: int,
        shortest_window: float = 1.0,
        augment: Callable[[Example, random.Random], Example] | None = None,
    ) -> None:
        self.examples = examples
        self.window_maker = window_maker
        self.shortest_window = shortest_window
        self.augment = augment
        self.seed = seed
        self.epoch = 0  # set from outside when one begins
        missable = [index for index, example in enumerate(examples) if self._can_miss(example)]
        count = min(len(missable), round(windows_without_answer * len(examples)))
        self._missing = sorted(random.Random(seed).sample(missable, count))

    def __len__(self) -> int:
        return len(self.examples) + len(self._missing)

    def __getitem__(self, index: int) -> LabelledWindow:
        draw = random.Random(f"{self.seed}/{self.epoch}/{index}")
        if index < len(self.examples):
            return self._around_answer(self._augmented(self.examples[index], draw), index, draw)
        return self._beside_answer(self._example(index), draw)

    @property
    def lengths(self) -> list[int]:
        """Tokens of every window of this epoch, before `augment` adds or takes some."""
        return [self._length(index) for index in range(len(self))]

    def _example(self, index: int) -> TokenizedExample:
        return self.examples[index if index < len(self.examples) else self._missing[index - len(self.examples)]]

    def _room(self, example: TokenizedExample, index: int) -> int:
        """How many context tokens the window holds at most: drawn anew every epoch, unless all are full."""
        room = self.window_maker.room(example.question)
        if self.shortest_window == 1 or index >= len(self.examples):
            return room
        draw = random.Random(f"{self.seed}/{self.epoch}/{index}/room")
        return round(room * draw.uniform(self.shortest_window, 1))

    def _augmented(self, example: TokenizedExample, draw: random.Random) -> TokenizedExample:
        if self.augment is None:
            return example
        changed = self.augment(example.example, draw)
        return next(iter(tokenize_examples([changed], self.window_maker)), example)

    def _length(self, index: int) -> int:
        example = self._example(index)
        unused = self.window_maker.room(example.question) - min(self._room(example, index), len(example.context))
        return self.window_maker.sizes.max_tokens - unused

    def _can_miss(self, example: TokenizedExample) -> bool:
        """Whether a full window fits before or after the answer."""
        if example.answer is None:
            return False
        room = self.window_maker.room(example.question)
        return example.answer[0] >= room or len(example.context) - example.answer[1] - 1 >= room

    def _around_answer(self, example: TokenizedExample, index: int, draw: random.Random) -> LabelledWindow:
        room = self._room(example, index)
        last = max(0, len(example.context) - room)
        if example.answer is None:
            return self._labelled(example, draw.randint(0, last), room)
        start, end = example.answer
        lowest, highest = max(0, end + 1 - room), min(start, last)
        # An answer longer than the window: its beginning is kept, the label ends with the window.
        return self._labelled(example, draw.randint(lowest, highest) if lowest <= highest else min(start, last), room)

    def _beside_answer(self, example: TokenizedExample, draw: random.Random) -> LabelledWindow:
        start, end = example.answer or (0, 0)
        room = self.window_maker.room(example.question)
        before = range(0, start - room + 1)
        after = range(end + 1, len(example.context) - room + 1)
        place = draw.randrange(len(before) + len(after))
        return self._labelled(example, before[place] if place < len(before) else after[place - len(before)], room)

    def _labelled(self, example: TokenizedExample, first: int, room: int) -> LabelledWindow:
        window = self.window_maker.window(example.question, example.context, first, room)
        if example.answer is None:
            return LabelledWindow(window, 0, 0)
        start, end = (window.context_at + token - first for token in example.answer)
        final = window.context_at + window.count - 1
        if not window.context_at <= start <= final:
            return LabelledWindow(window, 0, 0)
        return LabelledWindow(window, start, min(end, final))


class WithLengths(Protocol):
    """What `LikeLengths` needs to know of training windows."""

    seed: int
    epoch: int

    @property
    def lengths(self) -> list[int]: ...

    def __len__(self) -> int: ...


class LikeLengths(Sampler[int]):
    """Indices in an order that brings windows of like length into the same batch; batches come in random order.

    The order is a function of (seed, epoch) alone, so that a resumed training goes on where it was.
    """

    def __init__(self, windows: WithLengths, batch_size: int) -> None:
        self.windows = windows
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.windows.seed}/{self.windows.epoch}")
        lengths = self.windows.lengths
        order = draw.sample(range(len(self)), len(self))
        pool = self.batch_size * _POOLED_BATCHES
        batches = []
        for start in range(0, len(order), pool):
            alike = sorted(order[start : start + pool], key=lengths.__getitem__)
            batches += [alike[at : at + self.batch_size] for at in range(0, len(alike), self.batch_size)]
        partial = [batches.pop()] if len(batches[-1]) < self.batch_size else []  # must stay last to stay whole
        draw.shuffle(batches)
        return itertools.chain.from_iterable(batches + partial)


def collate(windows: Sequence[LabelledWindow], pad_id: int) -> dict[str, Tensor]:
    """A batch as the model takes it: input_ids, token_type_ids, attention_mask [window, token], labels [window]."""
    longest = max(len(item.window) for item in windows)
    shape = (len(windows), longest)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    token_type_ids = torch.zeros(shape, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    for row, item in enumerate(windows):
        length = len(item.window)
        input_ids[row, :length] = torch.from_numpy(item.window.input_ids)
        token_type_ids[row, :length] = torch.from_numpy(item.window.token_type_ids)
        attention_mask[row, :length] = 1
    return {
        "input_ids": input_ids,
        "token_type_ids": token_type_ids,
        "attention_mask": attention_mask,
        "start_positions": torch.tensor([item.start_token for item in windows]),
        "end_positions": torch.tensor([item.end_token for item in windows]),
    }
