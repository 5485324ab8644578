"""Single characters: every border between Chinese characters is a token border, and what stays keeps its embedding."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from qa_engine import Reader
from trainer.__main__ import main
from trainer.vocabulary import is_joined

# 龘 stands in pieces of several characters only.
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"中国人民我年的》《，", "中国", "人民", "》《", "▁我", "龘龘", "龘人"]
PIECES += ["2016", "▁the", "th", "年的", "......", "70,000", *"0267"]
shared_models = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer(models.Unigram([(piece, -float(place)) for place, piece in enumerate(PIECES)], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "mask_token": "<mask>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=512, **special
    )
    fast.save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(fast), pad_token_id=1, initializer_range=0.5, **sizes)
    BertForQuestionAnswering(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cut(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut") / "single"
    assert main(["adapt", "--single-characters", "--base", str(base), "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def tokenizer(cut: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(cut)
    return tokenizer


def embeddings(folder: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForQuestionAnswering.from_pretrained(folder, dtype=torch.float32)
    rows = model.get_input_embeddings().weight
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    assert len(rows) == len(vocabulary)
    return {piece: rows[place].detach() for piece, place in vocabulary.items()}


@pytest.mark.parametrize("piece", ["中国", "▁我", "》《", "年的", "2016年", "。”", "70,000", "▁中国"])
def test_a_piece_that_may_hide_a_border_is_joined(piece: str) -> None:
    assert is_joined(piece)


@pytest.mark.parametrize("piece", ["中", "▁", "，", "▁the", "2016", "......", "é", "▁("])
def test_other_pieces_are_not(piece: str) -> None:
    assert not is_joined(piece)


@given(text=st.text("中国人民我年的》《，龘 the2016", min_size=1, max_size=40))
@shared_models
def test_every_border_of_a_chinese_character_is_a_token_border(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    offsets = tokenizer(text, add_special_tokens=False).encodings[0].offsets
    chinese = [place for place, character in enumerate(text) if character in "中国人民我年的》《，龘"]
    assert set(chinese) <= {start for start, _ in offsets}
    assert {place + 1 for place in chinese} <= {end for _, end in offsets}


def test_pieces_that_stay_keep_their_embeddings(base: Path, cut: Path) -> None:
    before, after = embeddings(base), embeddings(cut)
    assert set(after) - set(before) == {"龘", ","}
    gone = {"中国", "人民", "》《", "▁我", "龘龘", "龘人", "年的", "70,000"}
    assert set(before) - set(after) == gone
    for piece in set(before) & set(after):
        torch.testing.assert_close(after[piece], before[piece], atol=1e-3, rtol=1e-3)


def test_a_character_without_a_piece_gets_the_mean_of_those_that_held_it(base: Path, cut: Path) -> None:
    before, after = embeddings(base), embeddings(cut)
    torch.testing.assert_close(after["龘"], (before["龘龘"] + before["龘人"]) / 2, atol=1e-3, rtol=1e-3)


def test_special_tokens_follow_their_pieces(cut: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    config = AutoModelForQuestionAnswering.from_pretrained(cut).config
    assert config.vocab_size == len(tokenizer)
    assert config.pad_token_id == tokenizer.pad_token_id == 1
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    assert tokenizer("我", "中国").tokens() == ["<s>", "▁", "我", "</s>", "</s>", "▁", "中", "国", "</s>"]


def test_a_cut_reader_reads_on(cut: Path) -> None:
    reading = Reader.load(cut, device="cpu").read("我？", "中国人民的》《")
    assert reading.answers[0].text in "中国人民的》《"


def test_punctuation_can_be_cut_alone(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "punctuation"
    assert main(["adapt", "--single-punctuation", "--base", str(base), "-o", str(folder)]) == 0
    before, after = embeddings(base), embeddings(folder)
    assert set(before) - set(after) == {"》《", "70,000"}
    assert set(after) - set(before) == {","}


def test_its_card_says_what_was_cut(cut: Path) -> None:
    card = (cut / "README.md").read_text(encoding="utf-8")
    assert "Vocabulary: 8 joined pieces removed, 2 characters added, 26 of 32 tokens left." in card
