"""What is known of a context is found once; of a long document the passages that the question is about are read."""

import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qa_engine import Ask, Reader
from qa_engine.contexts import Contexts
from qa_engine.passages import PASSAGES_READ, READ_WHOLE_TOKENS, Passages
from qa_engine.windows import Tokens
from tests.qa_engine.material import any_text

NEEDLE = "灯塔看守人老周每天清晨五点起床喂海鸥。"
HAY = "市图书馆的开放时间从三月起有所调整，请各位读者留意门口的通知。今天的会议讨论了下一年度的预算。"


@pytest.fixture(scope="module")
def reader(any_model: Path) -> Reader:
    return Reader.load(any_model, device="cpu", dtype="float32")


def document(characters: int, at: float) -> str:
    """Hay with one needle in it, at that share of its length."""
    before = int(characters * at)
    hay = HAY * (characters // len(HAY) + 1)
    return hay[:before] + NEEDLE + hay[before:characters]


@pytest.mark.parametrize("at", [0.0, 0.31, 0.99])
def test_of_a_long_document_the_passages_that_the_question_is_about_are_read(reader: Reader, at: float) -> None:
    text = document(60_000, at)
    encoded = reader.encode(Ask("老周几点起床喂海鸥？", text))
    assert len(encoded.windows) == PASSAGES_READ
    starts, ends = encoded.context.tokens.starts, encoded.context.tokens.ends
    place = text.index(NEEDLE)
    assert any(
        starts[window.first] <= place and ends[window.first + window.count - 1] >= place + len(NEEDLE)
        for window in encoded.windows
    )


def test_a_context_that_is_not_long_is_read_whole(reader: Reader) -> None:
    text = document(2_000, 0.5)
    encoded = reader.encode(Ask("老周几点起床？", text))
    assert len(encoded.context.tokens) <= READ_WHOLE_TOKENS
    seen = {token for window in encoded.windows for token in range(window.first, window.first + window.count)}
    assert seen == set(range(len(encoded.context.tokens)))


@settings(deadline=None, max_examples=30)
@given(any_text.filter(str.strip), any_text.filter(str.strip))
@example("中", "體\ud83d")  # half of an emoji, in the script that is converted
def test_whatever_is_read_of_a_long_document_lies_in_it_and_is_full(reader: Reader, text: str, question: str) -> None:
    long_text = text + HAY * 150 + text
    encoded = reader.encode(Ask(question, long_text))
    assert encoded.context.passages is not None
    room = reader.window_maker.room(reader.window_maker.tokenize_question(question))
    for window in encoded.windows:
        assert 0 <= window.first < window.first + window.count <= len(encoded.context.tokens)
        assert window.count >= min(room, len(encoded.context.tokens)) - 64


def test_of_spans_that_score_alike_the_one_in_the_passage_that_fits_the_question_is_the_answer(reader: Reader) -> None:
    encoded = reader.encode(Ask("老周几点起床喂海鸥？", document(60_000, 0.5)))
    priors = [window.prior for window in encoded.windows]
    assert priors[0] == 0 and priors == sorted(priors, reverse=True) and priors[-1] < 0
    spans = reader.forward(encoded.windows)
    alike = [replace(one, scores=np.full_like(one.scores, 3.0)) for one in spans]
    found = reader.candidates(encoded, alike)
    assert found.scores[0] == 3.0
    best = encoded.windows[0]
    tokens = encoded.context.tokens
    assert tokens.starts[best.first] <= found.spans[0, 0] < tokens.ends[best.first + best.count - 1]


@pytest.mark.parametrize(
    ("written", "asked"), [("ＡＢＣ１２３号", "abc123号在哪里？"), ("Abc123号", "ＡＢＣ１２３号在哪里？")]
)
def test_full_width_letters_and_digits_are_found_by_half_width_ones(written: str, asked: str) -> None:
    text = HAY * 200 + written + HAY * 200
    places = np.arange(len(text), dtype=np.int32)
    best = Passages(text, Tokens(places, places, places + 1)).best(asked, 440)[0]
    assert best.first <= text.index(written) < best.first + 440


def test_a_question_without_a_pair_of_the_text_reads_its_beginning(reader: Reader) -> None:
    encoded = reader.encode(Ask("zzz", document(60_000, 0.5)))
    assert encoded.windows[0].first == 0


def test_a_known_context_is_not_tokenized_again(reader: Reader) -> None:
    assert reader.contexts.known(HAY) is reader.contexts.known("".join(HAY))


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_cache_stays_within_its_bytes_and_keeps_what_was_used_last(reader: Reader, numbers: list[int]) -> None:
    kept_bytes = 20_000
    contexts = Contexts(reader.window_maker, kept_bytes)
    for number in numbers:
        known = contexts.known(f"{number}" + HAY * (number % 5 + 1))
        assert known.bytes < kept_bytes
        assert contexts.known(known.text) is known
        assert contexts.kept_bytes <= kept_bytes


def test_a_long_context_counts_for_no_less_than_its_index_takes(reader: Reader) -> None:
    letters = sorted(piece for piece in reader.tokenizer.get_vocab() if len(piece) == 1)
    frequencies = [1 / (rank + 10) for rank in range(len(letters))]  # about as in prose
    text = "".join(random.Random(7).choices(letters, frequencies, k=20_000))
    reader.contexts.known(document(20_000, 0.5))  # whatever is made once is made
    contexts = Contexts(reader.window_maker)
    tracemalloc.start()
    try:
        known = contexts.known(text)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert known.passages is not None
    assert taken <= known.bytes == contexts.kept_bytes


def test_what_is_larger_than_the_cache_is_read_and_not_kept(reader: Reader) -> None:
    contexts = Contexts(reader.window_maker, 100)
    assert contexts.known(HAY) is not contexts.known(HAY)
    assert contexts.kept_bytes == 0
