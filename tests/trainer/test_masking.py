"""Whole words are masked, in the shares and by the draws that are promised, with both kinds of tokenizers."""

from pathlib import Path

import numpy as np
import pytest
import rjieba
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trainer.masking import (
    MASKED_SHARE,
    MaskedWindows,
    MaskingVocabulary,
    TextWindow,
    collate_masked,
    masked_tokens,
    text_windows,
)

TEXT = "中国人民在那时间里打电话，他们以为那个电话是从中国打来的。\n\n   \n2016年他们在中国学习外语。\n"
shared_models = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="session")
def tokenizer(any_model: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(any_model)
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return tokenizer


@pytest.fixture(scope="session")
def masked(tokenizer: PreTrainedTokenizerBase) -> MaskedWindows:
    return MaskedWindows(text_windows(TEXT * 100, tokenizer, 60), MaskingVocabulary.of(tokenizer), seed=3)


@given(text=st.text("中国人民时间电话the的， \n２é\u0301ﷺ🙂㎏", max_size=80), room=st.integers(1, 30))
@shared_models
def test_windows_hold_every_token_of_a_text_once_and_words_in_order(
    tokenizer: PreTrainedTokenizerBase, text: str, room: int
) -> None:
    windows = text_windows(text, tokenizer, room)
    lines = [line for line in text.splitlines() if line.strip()]
    expected = [token for line in lines for token in tokenizer(line, add_special_tokens=False)["input_ids"]]
    assert [token for window in windows for token in window.ids.tolist()] == expected
    assert all(0 < len(window.ids) <= room for window in windows)
    for window in windows:
        assert (np.diff(window.first_words) >= 0).all()
        assert (np.diff(window.last_words) >= 0).all()
        assert (window.first_words <= window.last_words).all()


def test_a_token_touches_the_words_of_its_characters(tokenizer: PreTrainedTokenizerBase) -> None:
    line = "中国人民在打电话"
    (window,) = text_windows(line, tokenizer, 100)
    borders = np.cumsum([0, *(len(word) for word in rjieba.cut(line))])
    offsets = tokenizer(line, add_special_tokens=False).encodings[0].offsets
    for (start, end), first, last in zip(offsets, window.first_words, window.last_words, strict=True):
        assert borders[first] <= start < borders[first + 1]
        assert borders[last] < max(end, start + 1) <= borders[last + 1]


def test_a_piece_across_a_word_border_is_masked_with_either_word() -> None:
    """Tokens 1 and 2 touch word 1; token 1 touches word 0 too."""
    window = TextWindow(*(np.array(column, np.int32) for column in ([5, 6, 7, 8], [0, 0, 1, 2], [0, 1, 1, 2])))
    seen = {tuple(masked_tokens(window, np.random.default_rng(seed)).tolist()) for seed in range(50)}
    assert seen == {(True, True, False, False), (False, True, True, False), (False, False, False, True)}


def test_words_are_masked_whole(masked: MaskedWindows) -> None:
    for index, window in enumerate(masked.windows):
        is_masked = masked_tokens(window, np.random.default_rng(index))
        for token in np.flatnonzero(is_masked):
            touched = range(window.first_words[token], window.last_words[token] + 1)
            wholly = [is_masked[(window.first_words <= word) & (window.last_words >= word)].all() for word in touched]
            assert any(wholly), "each masked token touches a word of which nothing is shown"


def test_about_fifteen_per_cent_are_masked_and_never_more(masked: MaskedWindows) -> None:
    share = [
        masked_tokens(window, np.random.default_rng(index)).mean()
        for index, window in enumerate(masked.windows)
        if len(window.ids) == 60
    ]
    assert max(share) <= MASKED_SHARE
    assert np.mean(share) > MASKED_SHARE - 0.03


def test_of_the_masked_eight_in_ten_show_the_mask_one_another_and_one_itself(masked: MaskedWindows) -> None:
    shown, expected = [], []
    for masked.epoch in range(20):
        for index in range(len(masked)):
            item = masked[index]
            places = item.labels >= 0
            shown.append(item.input_ids[places])
            expected.append(item.labels[places])
    masked.epoch = 0
    tokens, labels = np.concatenate(shown), np.concatenate(expected)
    is_mask = tokens == masked.vocabulary.mask
    assert is_mask.mean() == pytest.approx(0.8, abs=0.02)
    assert (tokens == labels).mean() == pytest.approx(0.1, abs=0.02)
    others = tokens[~is_mask & (tokens != labels)]
    assert set(others.tolist()) <= set(masked.vocabulary.ordinary.tolist())
    assert len(set(others.tolist())) > 100


def test_what_is_not_masked_is_shown_and_has_no_label(
    masked: MaskedWindows, tokenizer: PreTrainedTokenizerBase
) -> None:
    item, window = masked[0], masked.windows[0]
    line = TEXT.splitlines()[0]
    plain = np.concatenate([masked.vocabulary.prefix, window.ids, masked.vocabulary.suffix])
    assert plain[: len(line) // 2].tolist() == tokenizer(line)["input_ids"][: len(line) // 2]
    assert item.input_ids[item.labels < 0].tolist() == plain[item.labels < 0].tolist()
    assert plain[item.labels >= 0].tolist() == item.labels[item.labels >= 0].tolist()
    assert item.labels[0] == item.labels[-1] == -100


def test_masks_are_a_function_of_seed_epoch_and_index(masked: MaskedWindows) -> None:
    again = MaskedWindows(masked.windows, masked.vocabulary, seed=3)
    other = MaskedWindows(masked.windows, masked.vocabulary, seed=4)
    first = [masked[index].input_ids.tolist() for index in range(len(masked))]
    assert [again[index].input_ids.tolist() for index in reversed(range(len(masked)))][::-1] == first
    assert [other[index].input_ids.tolist() for index in range(len(masked))] != first
    again.epoch = 1
    assert [again[index].input_ids.tolist() for index in range(len(masked))] != first


def test_an_unknown_token_is_nothing_to_learn(tokenizer: PreTrainedTokenizerBase) -> None:
    windows = text_windows("😀" * 30, tokenizer, 60)
    unknown = MaskedWindows(windows, MaskingVocabulary.of(tokenizer), seed=0)
    for unknown.epoch in range(5):
        item = unknown[0]
        assert tokenizer.unk_token_id in item.input_ids
        assert tokenizer.unk_token_id not in item.labels


def test_a_batch_is_padded_without_labels(masked: MaskedWindows) -> None:
    short, long = masked[len(masked) - 1], masked[0]
    assert len(short.input_ids) < len(long.input_ids)
    batch = collate_masked([short, long], pad_id=9)
    length = len(short.input_ids)
    assert set(batch["input_ids"][0, length:].tolist()) == {9}
    assert batch["attention_mask"].sum(1).tolist() == [length, len(long.input_ids)]
    assert set(batch["labels"][0, length:].tolist()) == {-100}
    assert batch["labels"][1].tolist() == long.labels.tolist()
