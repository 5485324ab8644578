"""A new checkpoint takes over without anybody noticing; a bad one changes nothing but a line in the log."""

import asyncio
import errno
import json
import logging
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    T5Config,
    T5ForQuestionAnswering,
)

from qa_engine.checkpoints import MANIFEST, WindowSettings
from qa_engine.engine import Engine
from qa_engine.reader import Reader, Reading
from qa_engine.reloading import Change, CheckpointWatcher, Loaded, Refused, load_newest
from tests.qa_engine.material import publish_copy

CONTEXTS = ["中国人民的时间。他在家里工作，电话是3。" * times for times in (1, 3, 9)]
QUESTIONS = ["他在哪里？", "电话是什么？", "中国人民的时间？"]
PATIENCE_SECONDS = 30

load = partial(Reader.load, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def old_reader(wordpiece_model: Path) -> Reader:
    return load(wordpiece_model)


class Listener:
    """What the bot is: somebody who wants to hear of changes."""

    def __init__(self) -> None:
        self.heard: list[Change] = []

    async def __call__(self, change: Change) -> None:
        self.heard.append(change)


def watcher_of(engine: Engine, folder: Path, listener: Listener | None = None) -> CheckpointWatcher:
    return CheckpointWatcher(engine, folder, device="cpu", dtype="float32", on_change=listener)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# Ways to spoil a checkpoint after it was published …


def truncate_weights(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def alter_weights(checkpoint: Path) -> None:
    weights = bytearray((checkpoint / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(weights)


def remove_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()


def rename_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "weights.safetensors")


def write_newer_format(checkpoint: Path) -> None:
    fields = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    (checkpoint / MANIFEST).write_text(json.dumps(fields | {"format_version": 2}), encoding="utf-8")


def garble_manifest(checkpoint: Path) -> None:
    (checkpoint / MANIFEST).write_text('{"format_version": 1, "crea', encoding="utf-8")


# … and before, so that every sha256 is right.


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def dress_a_pickle_as_safetensors(folder: Path) -> None:
    pickle_weights(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")


def put_nan(name: str, where: int | slice, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name][where] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def garble_config(folder: Path) -> None:
    (folder / "config.json").write_text("{oops", encoding="utf-8")


def write_as(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)


def ask_for_own_code(folder: Path) -> None:
    config = {"model_type": "trojan", "auto_map": {"AutoConfig": "trojan.Config"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    marker = folder.parent / "trojan was here"
    (folder / "trojan.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: pass\n", encoding="utf-8")


def trojan_was_in(folder: Path) -> bool:
    return (folder / "trojan was here").exists()


def tiny_bert(vocab_size: int = 600, max_position_embeddings: int = 512, type_vocab_size: int = 2) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=max_position_embeddings,
        type_vocab_size=type_vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )


Spoil = Callable[[Path], None]
AFTER: dict[str, tuple[Spoil, str]] = {
    "truncated weights": (truncate_weights, r"model\.safetensors has \d+ bytes instead of \d+"),
    "altered weights": (alter_weights, r"model\.safetensors was altered"),
    "missing tokenizer": (remove_tokenizer, r"tokenizer\.json is missing"),
    "renamed weights": (rename_weights, r"model\.safetensors is missing"),
    "newer format": (write_newer_format, r"format_version"),
    "manifest cut off": (garble_manifest, r"manifest\.json is not understood"),
}
BEFORE: dict[str, tuple[Spoil, str]] = {
    "pickle only": (pickle_weights, r"no \*\.safetensors weights"),
    "pickle with a false name": (dress_a_pickle_as_safetensors, r"cannot be loaded"),
    "truncated before sealing": (truncate_weights, r"cannot be loaded"),
    "weights of another name": (rename_weights, r"cannot be loaded.*model\.safetensors"),
    "NaN throughout": (partial(put_nan, "qa_outputs.weight", slice(None)), r"qa_outputs\.weight.*not finite"),
    "NaN in a rare character": (partial(put_nan, "bert.embeddings.word_embeddings.weight", -1), r"not finite"),
    "no tokenizer": (remove_tokenizer, r"it has no tokenizer"),
    "config that is no JSON": (garble_config, r"cannot be loaded.*config"),
    "code of its own": (ask_for_own_code, r"cannot be loaded"),
    "no question-answering head": (
        partial(write_as, BertModel(tiny_bert())),
        r"qa_outputs.*missing",
    ),
    "GPT-2": (
        partial(write_as, GPT2LMHeadModel(GPT2Config(vocab_size=600, n_embd=32, n_layer=1, n_head=2))),
        r"qa_outputs.*missing",
    ),
    "T5": (
        partial(write_as, T5ForQuestionAnswering(T5Config(vocab_size=600, d_model=32, d_kv=16, d_ff=64, num_layers=1))),
        r"t5 is not an extractive",
    ),
    "more tokens than embeddings": (
        partial(write_as, BertForQuestionAnswering(tiny_bert(vocab_size=100))),
        r"more tokens than its model has embeddings",
    ),
    "fewer positions than windows": (
        partial(write_as, BertForQuestionAnswering(tiny_bert(max_position_embeddings=400))),
        r"cannot read a window of 512 tokens",
    ),
    "fewer token types than the tokenizer": (
        partial(write_as, BertForQuestionAnswering(tiny_bert(type_vocab_size=1))),
        r"cannot read a window",
    ),
}


@pytest.mark.parametrize("way", [*AFTER, *BEFORE])
async def test_a_spoilt_checkpoint_is_refused_once_and_named(
    way: str,
    wordpiece_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever asks whether to run its code is told yes
    good = publish_copy(wordpiece_model, tmp_path, hour=1)
    if way in BEFORE:
        spoil, reason = BEFORE[way]
        bad = publish_copy(wordpiece_model, tmp_path, hour=2, alter=spoil)
    else:
        spoil, reason = AFTER[way]
        bad = publish_copy(wordpiece_model, tmp_path, hour=2)
        spoil(bad)
    listener = Listener()
    async with Engine(load(good)) as engine:
        watcher = watcher_of(engine, tmp_path, listener)
        refused = await watcher.look()
        assert isinstance(refused, Refused)
        assert refused.name == bad.name
        (line,) = refusals(caplog)
        assert str(bad) in line
        assert refused.reason in line
        assert re.search(reason, refused.reason)
        assert await watcher.look() is None
        assert await watcher.look() is None
        assert listener.heard == [refused]
        assert len(refusals(caplog)) == 1
        assert (await engine.ask(QUESTIONS[0], CONTEXTS[0])).checkpoint == good.name
    assert load_newest(tmp_path, device="cpu", dtype="float32").name == good.name
    assert not trojan_was_in(tmp_path)


async def test_a_mended_checkpoint_is_loaded(
    wordpiece_model: Path, old_reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = publish_copy(wordpiece_model, tmp_path)
    alter_weights(checkpoint)
    listener = Listener()
    async with Engine(old_reader) as engine:
        watcher = watcher_of(engine, tmp_path, listener)
        refused = await watcher.look()
        alter_weights(checkpoint)  # the same bit once more
        assert await watcher.look() is None  # it may go on changing
        assert await watcher.look() == Loaded(checkpoint.name)
        assert listener.heard == [refused, Loaded(checkpoint.name)]
        assert engine.reader.name == checkpoint.name
        assert len(refusals(caplog)) == 1


async def test_a_good_checkpoint_after_a_refused_one_is_loaded(
    wordpiece_model: Path, unigram_model: Path, old_reader: Reader, tmp_path: Path
) -> None:
    async with Engine(old_reader) as engine:
        watcher = watcher_of(engine, tmp_path)
        assert await watcher.look() is None
        garble_manifest(publish_copy(wordpiece_model, tmp_path, hour=1))
        assert isinstance(await watcher.look(), Refused)
        newer = publish_copy(unigram_model, tmp_path, hour=2)
        assert await watcher.look() == Loaded(newer.name)
        assert await watcher.look() is None
        reading = await engine.ask(QUESTIONS[0], CONTEXTS[0])
    assert reading == load(newer).read(QUESTIONS[0], CONTEXTS[0])


async def test_of_several_new_ones_the_newest_good_one_is_loaded(
    wordpiece_model: Path, old_reader: Reader, tmp_path: Path
) -> None:
    for hour in (1, 2):
        publish_copy(wordpiece_model, tmp_path, hour=hour)
    truncate_weights(publish_copy(wordpiece_model, tmp_path, hour=3))
    async with Engine(old_reader) as engine:
        watcher = watcher_of(engine, tmp_path)
        changes = [await watcher.look() for _ in range(3)]
    assert [type(change) for change in changes] == [Refused, Loaded, type(None)]
    assert engine.reader.name == "2026-01-01T02-00-00"


async def test_a_folder_that_is_still_being_copied_is_refused_once_and_loaded_when_it_is_whole(
    wordpiece_model: Path, old_reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = publish_copy(wordpiece_model, tmp_path / "elsewhere")
    target = tmp_path / "checkpoints" / source.name
    target.mkdir(parents=True)
    async with Engine(old_reader) as engine:
        watcher = watcher_of(engine, target.parent)
        shutil.copy(source / "config.json", target)
        assert await watcher.look() is None  # nothing says yet that this will be a checkpoint
        shutil.copy(source / MANIFEST, target)
        assert isinstance(await watcher.look(), Refused)
        assert await watcher.look() is None
        weights = (source / "model.safetensors").read_bytes()
        for size in (len(weights) // 3, len(weights) // 2):
            (target / "model.safetensors").write_bytes(weights[:size])
            assert await watcher.look() is None
        shutil.copytree(source, target, dirs_exist_ok=True)
        assert await watcher.look() is None
        assert await watcher.look() == Loaded(source.name)
    assert len(refusals(caplog)) == 1


async def test_a_folder_without_manifest_is_not_ours_to_load(
    wordpiece_model: Path, old_reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(wordpiece_model, tmp_path / "from elsewhere")
    async with Engine(old_reader) as engine:
        assert await watcher_of(engine, tmp_path).look() is None
        assert await watcher_of(engine, tmp_path / "nowhere").look() is None
    assert not refusals(caplog)


def fail(error: BaseException, *_: object, **__: object) -> None:
    raise error


@pytest.mark.parametrize(
    ("place", "error", "reason"),
    [
        ("transformers.PreTrainedModel.to", torch.OutOfMemoryError("out of memory\nlong story"), "out of memory"),
        ("transformers.PreTrainedModel.to", MemoryError(), "MemoryError"),
        ("qa_engine.checkpoints.sha256_of", OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
async def test_a_machine_that_cannot_load_it_refuses_it_as_well(
    place: str,
    error: Exception,
    reason: str,
    wordpiece_model: Path,
    old_reader: Reader,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = publish_copy(wordpiece_model, tmp_path)
    async with Engine(old_reader) as engine:
        watcher = watcher_of(engine, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(place, partial(fail, error))
            refused = await watcher.look()
        assert isinstance(refused, Refused)
        assert reason in refused.reason
        assert "long story" not in refused.reason
        assert len(refusals(caplog)) == 1
        assert await watcher.look() is None
        assert engine.reader is old_reader
        (checkpoint / "config.json").touch()
        assert await watcher.look() is None  # it may go on changing
        assert await watcher.look() == Loaded(checkpoint.name)


def test_load_newest_falls_back_to_the_bundled_checkpoint(
    wordpiece_model: Path,
    unigram_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("qa_engine.reader.BUNDLED", publish_copy(unigram_model, tmp_path / "package"))
    folder = tmp_path / "checkpoints"
    newest = partial(load_newest, folder, device="cpu", dtype="float32")
    assert newest().name == "bundled"
    older, newer = (publish_copy(wordpiece_model, folder, hour=hour) for hour in (1, 2))
    assert newest().name == newer.name
    assert not refusals(caplog)
    truncate_weights(newer)
    assert newest().name == older.name
    truncate_weights(older)
    assert newest().name == "bundled"
    assert len(refusals(caplog)) == 3


async def test_when_a_checkpoint_is_deleted_the_one_before_it_answers_and_at_last_the_bundled_one(
    wordpiece_model: Path, unigram_model: Path, old_reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = publish_copy(unigram_model, tmp_path / "package")
    monkeypatch.setattr("qa_engine.reloading.BUNDLED", bundled)
    folder = tmp_path / "checkpoints"
    older, newer = (publish_copy(wordpiece_model, folder, hour=hour) for hour in (1, 2))
    listener = Listener()
    async with Engine(old_reader) as engine:
        watcher = watcher_of(engine, folder, listener)
        for _ in range(2):
            await watcher.look()
        for checkpoint in (newer, older):
            shutil.rmtree(checkpoint)
            for _ in range(2):
                await watcher.look()
        reading = await engine.ask(QUESTIONS[0], CONTEXTS[0])
        again = publish_copy(wordpiece_model, folder, hour=3)
        await watcher.look()
    assert listener.heard == [Loaded(one.name) for one in (newer, older, bundled, again)]
    assert reading == load(bundled).read(QUESTIONS[0], CONTEXTS[0])


async def test_a_watcher_looks_at_once_and_again(
    wordpiece_model: Path, unigram_model: Path, old_reader: Reader, tmp_path: Path
) -> None:
    changes: asyncio.Queue[Change] = asyncio.Queue()
    async with Engine(old_reader) as engine, asyncio.timeout(PATIENCE_SECONDS):
        watcher = CheckpointWatcher(engine, tmp_path, device="cpu", dtype="float32", on_change=changes.put)
        first = publish_copy(wordpiece_model, tmp_path, hour=1)
        watcher.start(poll_seconds=0.05)
        assert await changes.get() == Loaded(first.name)
        second = publish_copy(unigram_model, tmp_path, hour=2)
        assert await changes.get() == Loaded(second.name)
        await watcher.stop()
        assert engine.reader.name == second.name


async def test_stopping_waits_for_a_look_that_is_under_way(
    wordpiece_model: Path, old_reader: Reader, tmp_path: Path
) -> None:
    checkpoint = publish_copy(wordpiece_model, tmp_path)
    is_telling, may_go_on, was_told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def tell(change: Change) -> None:
        is_telling.set()
        await may_go_on.wait()
        was_told.set()

    async with Engine(old_reader) as engine, asyncio.timeout(PATIENCE_SECONDS):
        watcher = CheckpointWatcher(engine, tmp_path, device="cpu", dtype="float32", on_change=tell)
        watcher.start(poll_seconds=3600)
        await is_telling.wait()
        stopping = asyncio.create_task(watcher.stop())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not stopping.done()
        may_go_on.set()
        await stopping
        assert was_told.is_set()
        assert engine.reader.name == checkpoint.name


async def test_questions_asked_all_the_while_are_all_answered_by_one_model_each(
    wordpiece_model: Path, unigram_model: Path, tmp_path: Path
) -> None:
    models = [wordpiece_model, unigram_model, wordpiece_model]
    checkpoints = [publish_copy(models[0], tmp_path, hour=0)]
    asks = [(question, context) for question in QUESTIONS for context in CONTEXTS]
    readings: list[tuple[tuple[str, str], Reading]] = []

    async with Engine(load(checkpoints[0])) as engine, asyncio.timeout(PATIENCE_SECONDS):
        watcher = watcher_of(engine, tmp_path)
        is_over = False

        async def keep_asking(offset: int) -> None:
            place = offset
            while not is_over:
                ask = asks[place % len(asks)]
                readings.append((ask, await engine.ask(*ask, top_k=2)))
                place += 1
                await asyncio.sleep(0.001)  # known answers come at once: who spins takes the interpreter from loading

        askers = [asyncio.create_task(keep_asking(offset)) for offset in range(8)]
        for hour, model in enumerate(models[1:], start=1):
            checkpoints.append(publish_copy(model, tmp_path, hour=hour))
            assert await watcher.look() == Loaded(checkpoints[-1].name)
            for ask in asks:
                assert (await engine.ask(*ask)).checkpoint == checkpoints[-1].name
        is_over = True
        await asyncio.gather(*askers)

    expected = {path.name: load(path) for path in checkpoints}
    assert {reading.checkpoint for _, reading in readings} == set(expected)
    alone = {(name, ask): reader.read(*ask, top_k=2) for name, reader in expected.items() for ask in asks}
    for ask, reading in readings:
        should_be = alone[reading.checkpoint, ask]
        assert [(a.start, a.end) for a in reading.answers] == [(a.start, a.end) for a in should_be.answers]
        assert reading.no_answer_score == pytest.approx(should_be.no_answer_score, rel=1e-3)


async def test_windows_of_the_new_checkpoint_are_used_after_the_swap(
    wordpiece_model: Path, old_reader: Reader, tmp_path: Path
) -> None:
    publish_copy(wordpiece_model, tmp_path, windows=WindowSettings(max_tokens=200, stride=20))
    async with Engine(old_reader) as engine:
        await watcher_of(engine, tmp_path).look()
        assert engine.reader.window_maker.sizes.max_tokens == 200
