"""The bundled checkpoint is whole, small, described, and never saw what it is measured on."""

import math
from pathlib import Path

import pytest

from qa_engine import Reader
from qa_engine.checkpoints import Manifest, read_manifest, sha256_of, verify
from qa_engine.reader import BUNDLED

NEVER_TRAINED_ON = {
    "cmrc2018_dev.json": "b6318806c3c8ecb0736cb468fefa55c6d807615afe9f14fdbecf4a9980a397f1",
    "drcd_test.json": "aad3ec90ae207252553702ced4391232ae033422b9548cec1de8571d3e06c07d",
}
EVERYDAY = Path(__file__).parents[2] / "benchmarks" / "everyday.json"
MAX_BYTES = 62_000_000


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    found = read_manifest(BUNDLED)
    assert found is not None
    return found


def test_the_bundled_checkpoint_is_what_its_manifest_says(manifest: Manifest) -> None:
    verify(BUNDLED, manifest)
    assert {path.name for path in BUNDLED.iterdir()} == {*manifest.files, "manifest.json"}


def test_the_bundled_checkpoint_is_small(manifest: Manifest) -> None:
    assert sum(record.bytes for record in manifest.files.values()) <= MAX_BYTES


def test_the_bundled_checkpoint_never_saw_a_dev_or_test_set(manifest: Manifest) -> None:
    assert manifest.data
    trained_on = {source.sha256 for source in manifest.data} | {source.name for source in manifest.data}
    assert trained_on.isdisjoint(NEVER_TRAINED_ON) and trained_on.isdisjoint(NEVER_TRAINED_ON.values())
    assert sha256_of(EVERYDAY) not in trained_on


def test_the_card_tells_base_data_licences_command_and_limits(manifest: Manifest) -> None:
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    expected = ["multilingual-e5-small", "CMRC 2018", "CC BY-SA", "Limits", manifest.command or "no command"]
    assert [words for words in expected if words not in card] == []
    assert all(source.name in card for source in manifest.data)


def test_the_bundled_reader_answers_and_abstains() -> None:
    reader = Reader.load(device="cpu")
    paragraph = "王阿姨的花店每天早上八点开门，晚上七点半关门。店里最贵的花是一盆兰花，卖680元。"
    opening = reader.read("花店早上几点开门？", paragraph).best
    assert opening is not None and "八点" in opening.text
    price = reader.read("兰花卖多少钱？", paragraph).best
    assert price is not None and price.text == "680元"
    unsaid = reader.read("月球离地球有多远？", paragraph)
    assert unsaid.best is None and not math.isnan(unsaid.no_answer_score)
