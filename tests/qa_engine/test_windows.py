"""Windows hold the whole context, in the tokenizer's own layout, and know where in the text they stand."""

import logging
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from qa_engine.errors import CheckpointBroken
from qa_engine.windows import MAX_QUESTION_TOKENS, Tokens, WindowMaker, WindowSizes
from tests.qa_engine.material import CHARACTERS_TO_THE_EYE, any_text


@pytest.fixture(scope="module")
def tokenizer(any_model: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(any_model)
    return loaded


@pytest.fixture(scope="module")
def maker(tokenizer: PreTrainedTokenizerBase) -> WindowMaker:
    return WindowMaker(tokenizer, WindowSizes())


def numbered(count: int, first_id: int = 0) -> Tokens:
    """That many tokens, all different."""
    places = np.arange(count, dtype=np.int32)
    return Tokens(places + first_id, places, places + 1)


@settings(deadline=None)
@given(
    context_length=st.integers(0, 2000),
    question_length=st.integers(0, MAX_QUESTION_TOKENS),
    max_tokens=st.integers(200, 512),
    stride=st.integers(0, 130),
)
@example(context_length=189, question_length=64, max_tokens=256, stride=128)
@example(context_length=2000, question_length=64, max_tokens=199, stride=130)
def test_windows_hold_every_token_of_the_context_and_share_the_stride(
    tokenizer: PreTrainedTokenizerBase, context_length: int, question_length: int, max_tokens: int, stride: int
) -> None:
    maker = WindowMaker(tokenizer, WindowSizes(max_tokens, stride))
    question, context = numbered(question_length), numbered(context_length, first_id=1000)
    windows = maker.windows(question, context)
    held = {place for window in windows for place in range(window.first, window.first + window.count)}
    assert held == set(range(context_length))
    for window in windows:
        assert len(window) <= max_tokens
        part = window.input_ids[window.context_at : window.context_at + window.count]
        assert part.tolist() == context.ids[window.first : window.first + window.count].tolist()
    for left, right in pairwise(windows):
        assert left.first < right.first
        assert left.first + left.count - right.first >= stride
        assert len(left) == len(right) == max_tokens


def test_a_window_is_what_the_tokenizer_makes_of_question_and_context(
    tokenizer: PreTrainedTokenizerBase, maker: WindowMaker
) -> None:
    question, context = "中国有多少人民？", "中国人民的时间，the 电话。"
    (context_tokens,) = maker.tokenize([context])
    (window,) = maker.windows(maker.tokenize_question(question), context_tokens)
    expected = tokenizer(question, context, return_token_type_ids=True)
    assert window.input_ids.tolist() == expected["input_ids"]
    assert window.token_type_ids.tolist() == expected["token_type_ids"]


def test_a_long_question_is_cut_with_a_warning_and_the_context_is_not(
    maker: WindowMaker, caplog: pytest.LogCaptureFixture
) -> None:
    text = "问的电话，" * 1000 + "他在家里工作？"
    question = maker.tokenize_question(text)
    assert len(question) == MAX_QUESTION_TOKENS
    assert question.ends[-1] == len(text), "what is asked stands at the end"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "cut to its last 64" in record.message
    (context,) = maker.tokenize(["人民的时间。" * 300])
    windows = maker.windows(question, context)
    assert windows[-1].first + windows[-1].count == len(context)


def test_a_question_that_just_fits_is_not_cut(maker: WindowMaker, caplog: pytest.LogCaptureFixture) -> None:
    text = "问电" * (MAX_QUESTION_TOKENS // 2)
    (whole,) = maker.tokenize([text])
    surplus = len(whole) - MAX_QUESTION_TOKENS  # a tokenizer may begin each text with a token of its own
    assert len(maker.tokenize_question(text[surplus:])) == MAX_QUESTION_TOKENS
    assert not caplog.records


@pytest.mark.parametrize("sign", ["<s>", "</s>", "<pad>", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
def test_the_model_s_own_signs_are_unknown_words_where_a_text_holds_them(
    tokenizer: PreTrainedTokenizerBase, maker: WindowMaker, sign: str
) -> None:
    text = f"问{sign}书"
    for tokens in (*maker.tokenize([text]), maker.tokenize_question(text)):
        assert not set(tokens.ids.tolist()) & set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        assert tokens.ends[-1] == len(text)
        if sign in tokenizer.all_special_tokens:
            (place,) = np.flatnonzero(tokens.ids == tokenizer.unk_token_id)
            assert text[tokens.starts[place] : tokens.ends[place]] == sign


def test_a_context_is_never_truncated(maker: WindowMaker) -> None:
    (tokens,) = maker.tokenize(["问电" * 5000])
    assert len(tokens) >= 10_000
    assert tokens.ends[-1] == 10_000


@pytest.mark.parametrize(
    "odd", [*CHARACTERS_TO_THE_EYE, "\ud83d", "\udc00\ud800", "𠮷𠮷𠮷", "㎏½ﷺ", "\u202e", "\u200b"]
)
def test_offsets_count_characters_of_the_text_as_given(
    tokenizer: PreTrainedTokenizerBase, maker: WindowMaker, odd: str
) -> None:
    text = f"问{odd}电{odd}{odd}书"
    (tokens,) = maker.tokenize([text])
    for letter in "问电书":
        places = np.flatnonzero(tokens.ids == tokenizer.convert_tokens_to_ids(letter))
        assert [(tokens.starts[place], tokens.ends[place]) for place in places] == [
            (text.index(letter), text.index(letter) + 1)
        ]


@settings(deadline=None, max_examples=200)
@given(any_text)
@example("㎏½ﷺ")
@example("e\u0301\u0301\u0301é")
def test_a_token_that_is_known_stands_where_its_offsets_say(
    tokenizer: PreTrainedTokenizerBase, maker: WindowMaker, text: str
) -> None:
    (tokens,) = maker.tokenize([text])
    for token_id, start, end in zip(tokens.ids.tolist(), tokens.starts.tolist(), tokens.ends.tolist(), strict=True):
        assert 0 <= start <= end <= len(text)
        piece = str(tokenizer.convert_ids_to_tokens(token_id)).removeprefix("##").replace("▁", "")
        if token_id not in tokenizer.all_special_ids:
            forms = [unicodedata.normalize(form, text[start:end]).lower() for form in ("NFKC", "NFKD", "NFD")]
            assert any(piece in form for form in forms)


def test_texts_are_tokenized_together_as_apart(maker: WindowMaker) -> None:
    texts = ["中国人民", "", "the 电话 \ud83d 👨‍👩‍👧", "㎏"]
    together = maker.tokenize(texts)
    for text, tokens in zip(texts, together, strict=True):
        (alone,) = maker.tokenize([text])
        assert (tokens.ids.tolist(), tokens.starts.tolist()) == (alone.ids.tolist(), alone.starts.tolist())


@pytest.mark.parametrize(("max_tokens", "stride"), [(64, 0), (130, 0), (190, 128), (512, 500)])
def test_windows_without_room_for_question_and_stride_are_refused(
    tokenizer: PreTrainedTokenizerBase, max_tokens: int, stride: int
) -> None:
    with pytest.raises(CheckpointBroken, match="leave no room"):
        WindowMaker(tokenizer, WindowSizes(max_tokens, stride))


def test_a_tokenizer_that_only_strings_pairs_together_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    bare = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")  # type: ignore[no-untyped-call]
    with pytest.raises(CheckpointBroken, match="does not lay out pairs"):
        WindowMaker(bare, WindowSizes())
