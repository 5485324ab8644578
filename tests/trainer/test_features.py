"""Training windows: labels point at the answer's tokens, draws can be repeated, batches hold windows of like length."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qa_engine.windows import Tokens, WindowMaker, WindowSizes
from trainer.features import (
    LabelledWindow,
    LikeLengths,
    TokenizedExample,
    TrainingWindows,
    collate,
    tokenize_examples,
)
from trainer.squad import Example, Span

SIZES = WindowSizes(max_tokens=136, stride=32)
QUESTION = "谁在中国？"
shared_models = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="session")
def window_maker(any_model: Path) -> WindowMaker:
    return WindowMaker(AutoTokenizer.from_pretrained(any_model), SIZES)


def example(context: str, start: int, end: int, identity: str = "a") -> Example:
    text = context[start:end]
    return Example(identity, QUESTION, context, (text,), Span(text, start))


def impossible(context: str, identity: str = "a") -> Example:
    return Example(identity, QUESTION, context, (), None)


def windows_of(
    examples: Sequence[Example], window_maker: WindowMaker, windows_without_answer: float = 0.0, seed: int = 0
) -> TrainingWindows:
    tokenized = tokenize_examples(examples, window_maker)
    return TrainingWindows(tokenized, window_maker, windows_without_answer=windows_without_answer, seed=seed)


def contents(item: LabelledWindow) -> tuple[list[int], int, int, int]:
    return item.window.input_ids.tolist(), item.window.first, item.start_token, item.end_token


def labelled_characters(item: LabelledWindow, tokens: Tokens) -> range:
    """The characters of the context between the labels."""
    shift = item.window.first - item.window.context_at
    return range(int(tokens.starts[item.start_token + shift]), int(tokens.ends[item.end_token + shift]))


@st.composite
def examples_with_answers(draw: st.DrawFn) -> Example:
    """Contexts up to several windows long, of all kinds of characters, with an answer somewhere."""
    alphabet = "中国人民在的有，。「」 \n臺㎏½ﷺ🙂é①Ａ１2the"
    before, answer, after = (
        draw(st.text(alphabet, min_size=least, max_size=10)) * draw(st.integers(1, 30)) for least in (0, 1, 0)
    )
    return example(before + answer + after, len(before), len(before + answer))


@given(one=examples_with_answers(), epoch=st.integers(0, 3))
@shared_models
def test_labels_enclose_the_answer_and_nothing_more(window_maker: WindowMaker, one: Example, epoch: int) -> None:
    windows = windows_of([one], window_maker)
    assert one.span is not None
    (tokens,) = window_maker.tokenize([one.context])
    answer = range(one.span.start, one.span.end)
    covered = [set(range(start, end)) for start, end in zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)]
    touching = [place for place, characters in enumerate(covered) if characters & set(answer)]
    if not touching:
        assert len(windows) == 0
        return
    windows.epoch = epoch
    item = windows[0]
    window, at = item.window, item.window.context_at
    room = window_maker.room(window_maker.tokenize_question(QUESTION))
    assert at <= item.start_token <= item.end_token < at + window.count
    assert window.input_ids[at : at + window.count].tolist() == tokens.ids[window.first :][: window.count].tolist()
    labelled = labelled_characters(item, tokens)
    assert covered[item.start_token - at + window.first] & set(answer), "the first labelled token is the answer's"
    assert covered[item.end_token - at + window.first] & set(answer), "the last labelled token is the answer's"
    assert set(answer) & covered[touching[0]] <= set(labelled), "the answer's beginning is never lost"
    if touching[-1] - touching[0] < room:
        assert set(answer) & set().union(*covered) <= set(labelled)
    else:
        assert item.end_token == at + window.count - 1, "an answer longer than a window is labelled to the window's end"


@given(one=examples_with_answers(), epoch=st.integers(0, 3))
@shared_models
def test_windows_without_the_answer_are_full_miss_it_and_have_the_null_label(
    window_maker: WindowMaker, one: Example, epoch: int
) -> None:
    windows = windows_of([one], window_maker, windows_without_answer=1.0)
    windows.epoch = epoch
    (tokens,) = window_maker.tokenize([one.context])
    for item in [windows[index] for index in range(1, len(windows))]:
        assert (item.start_token, item.end_token) == (0, 0)
        assert len(item.window) == SIZES.max_tokens
        seen = range(item.window.first, item.window.first + item.window.count)
        assert one.span is not None
        assert not any(tokens.starts[place] < one.span.end and tokens.ends[place] > one.span.start for place in seen)


def test_a_window_that_misses_the_answer_is_drawn_wherever_one_fits(window_maker: WindowMaker) -> None:
    filler = "中国" * 200
    in_the_middle = example(f"{filler}王{filler}", 400, 401)
    windows = windows_of([in_the_middle], window_maker, windows_without_answer=1.0)
    assert len(windows) == 2
    firsts = []
    for windows.epoch in range(60):
        firsts.append(windows[1].window.first)
    (tokens,) = window_maker.tokenize([in_the_middle.context])
    middle = len(tokens) / 2
    assert min(firsts) < middle < max(firsts), "before it and after it"
    assert len(set(firsts)) > 20


@pytest.mark.parametrize(("asked", "kept"), [(0.0, 0), (0.25, 2), (0.5, 4), (5.0, 6)])
def test_windows_without_the_answer_are_so_many_a_question_as_long_contexts_allow(
    window_maker: WindowMaker, asked: float, kept: int
) -> None:
    long, short = "的" * 500 + "王", "的王"
    examples = [example(long, 500, 501, f"long-{n}") for n in range(6)] + [
        example(short, 1, 2, f"{n}") for n in range(2)
    ]
    windows = windows_of(examples, window_maker, windows_without_answer=asked)
    assert len(windows) == 8 + kept
    null = [windows[index] for index in range(len(windows)) if windows[index].start_token == 0]
    assert len(null) == kept


def test_an_unanswerable_question_has_the_null_label_in_every_epoch(window_maker: WindowMaker) -> None:
    windows = windows_of([impossible("的一是" * 200), impossible("短", "b")], window_maker, windows_without_answer=1.0)
    assert len(windows) == 2, "they need no further windows without an answer"
    firsts = set()
    for windows.epoch, index in itertools.product(range(10), range(2)):
        assert (windows[index].start_token, windows[index].end_token) == (0, 0)
        firsts.add(windows[index].window.first)
    assert len(firsts) > 3, "long ones show another part each time"


def test_what_cannot_be_labelled_is_left_out(wordpiece_model: Path) -> None:
    nowhere = Example("nowhere", QUESTION, "中国人民", ("王",), None)
    tokenless = example("中国 人民", 2, 3, "white space, which has no token in BERT's vocabularies")
    nothing = impossible("", "empty")
    kept = example("中国人民", 2, 4, "kept")
    window_maker = WindowMaker(AutoTokenizer.from_pretrained(wordpiece_model), SIZES)
    (only,) = tokenize_examples([nowhere, tokenless, nothing, kept], window_maker)
    assert only.answer == (2, 3)


def test_a_question_is_learned_in_the_script_in_which_it_will_be_read(window_maker: WindowMaker) -> None:
    (learned,) = tokenize_examples([replace(example("电话是三。", 3, 4), question="電話是什麼？")], window_maker)
    assert learned.question.ids.tolist() == window_maker.tokenize_question("电话是什么？").ids.tolist()


def training_set(window_maker: WindowMaker, seed: int = 0, count: int = 700, longest: int = 400) -> TrainingWindows:
    """Contexts of all lengths, in characters."""
    draw = random.Random(1)
    examples = []
    for number in range(count):
        context = "的" * draw.randrange(longest // 2) + "王" + "了" * draw.randrange(longest // 2)
        examples.append(example(context, context.index("王"), context.index("王") + 1, str(number)))
    return windows_of(examples, window_maker, windows_without_answer=0.1, seed=seed)


def test_a_window_is_a_function_of_seed_epoch_and_index(window_maker: WindowMaker) -> None:
    first, second, other = (training_set(window_maker, seed, 40) for seed in (0, 0, 1))
    drawn = {}
    for epoch in (1, 0, 2):
        first.epoch = epoch
        drawn[epoch] = [contents(first[index]) for index in range(len(first))]
    second.epoch = 1
    backwards = [contents(second[index]) for index in reversed(range(len(second)))]
    assert backwards[::-1] == drawn[1], "the order of asking, and what was asked before, do not matter"
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
    other.epoch = 1
    assert [contents(other[index]) for index in range(40)] != drawn[1][:40]


def test_an_answer_is_learned_at_many_places_of_its_window(window_maker: WindowMaker) -> None:
    windows = windows_of([example("的" * 300 + "王" + "了" * 300, 300, 301)], window_maker)
    places = []
    for windows.epoch in range(200):
        item = windows[0]
        places.append((item.start_token - item.window.context_at) / item.window.count)
    assert min(places) < 0.1
    assert max(places) > 0.9


def test_the_length_of_a_window_is_known_before_it_is_drawn(window_maker: WindowMaker) -> None:
    windows = training_set(window_maker, count=60)
    for windows.epoch in range(3):
        assert [len(windows[index].window) for index in range(len(windows))] == windows.lengths


def test_windows_of_all_lengths_are_drawn_anew_every_epoch_and_keep_the_answer(window_maker: WindowMaker) -> None:
    tokenized = tokenize_examples([example("的" * 300 + "王" + "了" * 300, 300, 301)], window_maker)
    windows = TrainingWindows(tokenized, window_maker, windows_without_answer=0, seed=0, shortest_window=0.5)
    lengths = []
    for windows.epoch in range(100):
        item = windows[0]
        lengths.append(len(item.window))
        assert windows.lengths == [len(item.window)], "known before it is drawn"
        assert item.start_token == item.end_token > 0
    room = window_maker.room(tokenized[0].question)
    shortest = SIZES.max_tokens - room // 2
    assert shortest <= min(lengths) < shortest + room / 10
    assert SIZES.max_tokens - room / 10 < max(lengths) <= SIZES.max_tokens


@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_an_epoch_holds_every_window_once(window_maker: WindowMaker, batch_size: int) -> None:
    windows = training_set(window_maker)
    sampler = LikeLengths(windows, batch_size)
    assert sorted(sampler) == list(range(len(windows)))
    assert len(sampler) == len(windows)


def test_the_order_is_a_function_of_seed_and_epoch(window_maker: WindowMaker) -> None:
    windows = training_set(window_maker)
    sampler = LikeLengths(windows, 16)
    assert list(sampler) == list(sampler) == list(LikeLengths(training_set(window_maker), 16))
    first = list(sampler)
    windows.epoch = 1
    assert list(sampler) != first
    assert list(LikeLengths(training_set(window_maker, seed=1), 16)) != first


def padding_share(lengths: list[int], batch_size: int) -> float:
    batches = [lengths[at : at + batch_size] for at in range(0, len(lengths), batch_size)]
    return 1 - sum(lengths) / sum(max(batch) * len(batch) for batch in batches)


def test_batches_of_like_length_hold_hardly_any_padding(window_maker: WindowMaker) -> None:
    windows = training_set(window_maker, longest=120)
    lengths = [windows.lengths[index] for index in LikeLengths(windows, 16)]
    unsorted = [windows.lengths[index] for index in random.Random(0).sample(range(len(windows)), len(windows))]
    assert padding_share(lengths, 16) < 0.05
    assert padding_share(unsorted, 16) > 0.2
    firsts = lengths[: 16 * 12 : 16]
    assert firsts not in (sorted(firsts), sorted(firsts, reverse=True)), "batches themselves come in random order"


def test_a_batch_is_padded_to_its_longest_window_only(window_maker: WindowMaker) -> None:
    windows = windows_of([example("王中国", 0, 1), impossible("的" * 30, "b")], window_maker)
    short, long = windows[0], windows[1]
    batch = collate([short, long], pad_id=9)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": (2, len(long.window)),
        "token_type_ids": (2, len(long.window)),
        "attention_mask": (2, len(long.window)),
        "start_positions": (2,),
        "end_positions": (2,),
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    length = len(short.window)
    assert batch["attention_mask"].tolist() == [
        [1] * length + [0] * (len(long.window) - length),
        [1] * len(long.window),
    ]
    np.testing.assert_array_equal(batch["input_ids"][0, :length], short.window.input_ids)
    assert set(batch["input_ids"][0, length:].tolist()) == {9}
    np.testing.assert_array_equal(batch["token_type_ids"][0, :length], short.window.token_type_ids)
    assert set(batch["token_type_ids"][0, length:].tolist()) == {0}
    assert batch["start_positions"].tolist() == [short.start_token, 0]
    assert batch["end_positions"].tolist() == [short.end_token, 0]


def test_questions_on_one_context_share_its_tokens(window_maker: WindowMaker) -> None:
    context = "中国人民" * 50
    first, second = tokenize_examples([example(context, 0, 2), example(context, 4, 6, "b")], window_maker)
    assert isinstance(first, TokenizedExample)
    assert first.context is second.context
