"""What all tests share: small models with random weights, one of each tokenizer kind, made on the spot."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may wait for a network; read when transformers is imported

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForQuestionAnswering, BertTokenizerFast, PreTrainedTokenizerFast

LETTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定"
    "行学法所民得经十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因由其"
    "些然前外天政四日那社义事平形相全表间样与关各重新线内数正心反你明看原又么利比或但质气第向道命此变条只没结解问意建"
    "月公无系军很情者最立代想已通并提直题党程展五果料象员革位入常文总次品式活设及管特件长求老头基资边流路级少图山统接"
    "知较将组见计别她手角期根论运农指几九区强放决西被干做必战先回则任取据处队南给色光门即保治北造百规热领七海口东导器"
    "压志世金增争济阶油思术极交受联什认六共权收证改清己美再采转更单风切打白教速花带安场身车例真务具万每目至达走积示议"
    "声报斗完类八离华名确才科张信马节话米整空元况今集温传土许步群广石记需段研界拉林律叫且究观越织装影算低持音众书布复"
    "容儿须际商非验连断深难近矿千周委素技备半办青省列习响约支般史感劳便团往酸历市克何除消构府称太准精值号率族维划选标"
    "写存候毛亲快效斯院查江型眼王按格养易置派层片始却专状育厂京识适属圆包火住调满县局照参红细引听该铁价严，。？！：；"
    "、“”‘’「」《》（）,.?!0123456789abcdefghijklmnopqrstuvwxyz"
)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    """Small models gain nothing from many threads, and sums in one order are the same sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _save_model(folder: Path, vocabulary_size: int, pad_id: int, positions: int) -> None:
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        pad_token_id=pad_id,
        initializer_range=0.5,  # far from zero, so that scores differ
    )
    BertForQuestionAnswering(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def wordpiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT folder in the manner of bert-base-chinese: `[CLS] question [SEP] context [SEP]`, characters as pieces."""
    folder = tmp_path_factory.mktemp("models") / "wordpiece"
    folder.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(LETTERS), "##0", "##s"]
    BertTokenizerFast(vocab={piece: place for place, piece in enumerate(pieces)}).save_pretrained(folder)
    _save_model(folder, len(pieces), pad_id=0, positions=512)
    return folder


@pytest.fixture(scope="session")
def unigram_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the manner of the bundled one: `<s> question </s> </s> context </s>`, NFKC and pieces of words."""
    folder = tmp_path_factory.mktemp("models") / "unigram"
    folder.mkdir()
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *dict.fromkeys(LETTERS), "中国", "人民", "时间", "电话", "▁the"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(place)) for place, piece in enumerate(pieces)], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=512, **special
    ).save_pretrained(folder)
    _save_model(folder, len(pieces), pad_id=1, positions=512)
    return folder


@pytest.fixture(scope="session", params=["wordpiece", "unigram"])
def any_model(request: pytest.FixtureRequest) -> Path:
    """Both kinds, one after the other."""
    model: Path = request.getfixturevalue(f"{request.param}_model")
    return model
