"""A checkpoint is there whole or not at all, and what was altered since is noticed."""

import logging
import multiprocessing
import os
import random
import shutil
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from qa_engine.checkpoints import (
    MANIFEST,
    Calibration,
    Manifest,
    candidates,
    publish,
    read_manifest,
    refuse_pickles,
    verify,
)
from qa_engine.errors import CheckpointBroken, CheckpointMissing

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KILLS = 25
PATIENCE_SECONDS = 30


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """New processes in a few milliseconds: forked from one that has no threads and no models."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "pytest", "qa_engine.checkpoints"])
    return context


def manifest(created: datetime = NOON) -> Manifest:
    return Manifest(created=created, base_model="a base", metrics={"dev": {"f1": 84.5}})


def write_files(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("一\n二\n", encoding="utf-8")


def write_many_files(folder: Path) -> None:
    for number in range(50):
        (folder / f"{number}.safetensors").write_bytes(b"weights" * 1000)


def publish_without_end(folder: Path) -> None:
    while True:
        publish(folder, manifest(datetime.now(UTC)), write_many_files)


def publish_slowly(folder: Path, has_begun: Event, may_end: Event) -> None:
    def write_slowly(unfinished: Path) -> None:
        write_files(unfinished)
        has_begun.set()
        may_end.wait(PATIENCE_SECONDS)

    publish(folder, manifest(), write_slowly)


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(".unfinished-*"))


def test_a_published_checkpoint_is_whole_and_says_what_it_is(tmp_path: Path) -> None:
    checkpoint = publish(tmp_path / "new" / "folder", manifest(), write_files)
    assert checkpoint == tmp_path / "new" / "folder" / "2026-01-01T12-00-00"
    read = read_manifest(checkpoint)
    assert read is not None
    assert read.model_copy(update={"files": {}}) == manifest()
    assert set(read.files) == {"model.safetensors", "tokenizer/vocab.txt"}
    verify(checkpoint, read)
    assert candidates(checkpoint.parent) == [checkpoint]
    assert not leftovers(checkpoint.parent)


def test_two_checkpoints_of_one_second_have_two_names(tmp_path: Path) -> None:
    published = [publish(tmp_path, manifest(), write_files) for _ in range(3)]
    assert [path.name for path in published] == [f"2026-01-01T12-00-00{end}" for end in ("", "-2", "-3")]
    assert candidates(tmp_path) == published[::-1]


def test_a_name_in_another_time_zone_is_that_of_utc(tmp_path: Path) -> None:
    beijing = datetime.fromisoformat("2026-01-01T20:00:00+08:00")
    assert publish(tmp_path, manifest(beijing), write_files).name == "2026-01-01T12-00-00"


def test_a_publish_that_fails_leaves_no_checkpoint(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write_files(folder)
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        publish(tmp_path, manifest(), fail)
    assert candidates(tmp_path) == []
    publish(tmp_path, manifest(), write_files)
    assert not leftovers(tmp_path)


def test_a_publisher_killed_at_any_moment_leaves_no_half_checkpoint(
    processes: ForkServerContext, tmp_path: Path
) -> None:
    generator = random.Random(7)
    interrupted = 0
    for _ in range(KILLS):
        before = set(tmp_path.iterdir())
        publisher = processes.Process(target=publish_without_end, args=(tmp_path,))
        publisher.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while set(tmp_path.iterdir()) <= before:
            assert publisher.is_alive()
            assert time.monotonic() < deadline, "nothing was written"
        time.sleep(generator.uniform(0, 0.05))
        publisher.kill()
        publisher.join()
        publisher.close()
        interrupted += len(leftovers(tmp_path))
        for checkpoint in candidates(tmp_path):
            found = read_manifest(checkpoint)
            assert found is not None
            assert len(found.files) == 50
            verify(checkpoint, found)
    assert interrupted > 0, "no kill came while a checkpoint was being written"
    publish(tmp_path, manifest(), write_files)
    assert not leftovers(tmp_path)


def test_what_a_living_process_is_writing_is_left_alone(processes: ForkServerContext, tmp_path: Path) -> None:
    has_begun, may_end = processes.Event(), processes.Event()
    publisher = processes.Process(target=publish_slowly, args=(tmp_path, has_begun, may_end))
    publisher.start()
    assert has_begun.wait(PATIENCE_SECONDS)
    mine = publish(tmp_path, manifest(), write_files)
    assert len(leftovers(tmp_path)) == 1
    assert candidates(tmp_path) == [mine]
    may_end.set()
    publisher.join(PATIENCE_SECONDS)
    assert publisher.exitcode == 0
    assert [path.name for path in candidates(tmp_path)] == ["2026-01-01T12-00-00-2", "2026-01-01T12-00-00"]
    assert not leftovers(tmp_path)


def test_newest_is_what_the_manifest_says_and_not_what_the_name_says(tmp_path: Path) -> None:
    old = publish(tmp_path, manifest(NOON), write_files)
    new = publish(tmp_path, manifest(NOON + timedelta(minutes=1)), write_files)
    renamed = old.rename(tmp_path / "zzz")
    assert candidates(tmp_path) == [new, renamed]


def test_what_is_no_finished_checkpoint_is_no_candidate(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "without-manifest").mkdir()
    write_files(tmp_path / "without-manifest")
    (tmp_path / "a file").write_text("{}")
    (tmp_path / ".unfinished-1-x").mkdir()
    (tmp_path / ".unfinished-1-x" / MANIFEST).write_text(manifest().model_dump_json())
    assert candidates(tmp_path) == []
    assert candidates(tmp_path / "nowhere") == []


def test_a_checkpoint_removed_while_we_look_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = publish(tmp_path, manifest(), write_files)

    def read_too_late(path: Path) -> Manifest | None:
        shutil.rmtree(path)
        return read_manifest(path)

    monkeypatch.setattr("qa_engine.checkpoints.read_manifest", read_too_late)
    assert set(candidates(tmp_path)) <= {checkpoint}
    assert candidates(tmp_path) == []


def test_a_folder_that_may_not_be_looked_into_is_passed_over_and_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = publish(tmp_path, manifest(), write_files)
    (tmp_path / "lost+found").mkdir()
    is_file = Path.is_file

    def refused(path: Path) -> bool:  # root, as whom tests may run, is refused nothing
        if path.parent.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    assert [candidates(tmp_path) for _ in range(3)] == [[checkpoint]] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"{tmp_path / 'lost+found'} is passed over: Permission denied")
    assert "chmod" in record.message


def test_a_checkpoint_whose_manifest_may_not_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readable, secret = (publish(tmp_path, manifest(), write_files) for _ in range(2))
    read_bytes = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path == secret / MANIFEST:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert candidates(tmp_path) == [readable]


def test_a_published_checkpoint_can_be_read_by_all_users(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        checkpoint = publish(tmp_path, manifest(), write_files)
    finally:
        os.umask(umask)
    for path in [checkpoint, *checkpoint.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def truncate(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def alter(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(b"W" + weights.read_bytes()[1:])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncate, r"model\.safetensors has 6999 bytes instead of 7000"),
        (alter, r"model\.safetensors was altered"),
        (lambda checkpoint: (checkpoint / "tokenizer" / "vocab.txt").unlink(), r"tokenizer/vocab\.txt is missing"),
    ],
)
def test_what_changed_since_publishing_is_noticed_and_named(tmp_path: Path, spoil: object, reason: str) -> None:
    checkpoint = publish(tmp_path, manifest(), write_files)
    sealed = read_manifest(checkpoint)
    assert sealed is not None
    assert callable(spoil)
    spoil(checkpoint)
    with pytest.raises(CheckpointBroken, match=reason):
        verify(checkpoint, sealed)


def test_a_checkpoint_sealed_without_weights_is_broken(tmp_path: Path) -> None:
    checkpoint = publish(tmp_path, manifest(), lambda folder: (folder / "config.json").touch())
    sealed = read_manifest(checkpoint)
    assert sealed is not None
    with pytest.raises(CheckpointBroken, match=r"no \*\.safetensors weights"):
        verify(checkpoint, sealed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{oops", "manifest.json is not understood.*JSON"),
        ("[]", "manifest.json is not understood"),
        ("{}", "created"),
        ('{"format_version": 2, "created": "2026-01-01T12:00:00Z", "base_model": "x"}', "format_version"),
        ('{"created": "2026-01-01T12:00:00", "base_model": "x"}', "created.*timezone"),
        ('{"created": "2026-01-01T12:00:00Z", "base_model": "x", "windows": {"max_tokens": 0}}', "windows.max_tokens"),
        ('{"created": "2026-01-01T12:00:00Z", "base_model": "x", "metrics": {"dev": {"f1": NaN}}}', "metrics.dev.f1"),
    ],
)
def test_a_manifest_that_is_not_understood_is_broken_and_says_where(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(CheckpointBroken, match=reason):
        read_manifest(tmp_path)


def test_a_manifest_that_is_no_utf8_is_broken(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b"\xff\xfe{}")
    with pytest.raises(CheckpointBroken, match=r"manifest\.json is not understood"):
        read_manifest(tmp_path)


def test_a_folder_without_manifest_has_none_and_no_folder_is_missing(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    with pytest.raises(CheckpointMissing, match="nowhere"):
        read_manifest(tmp_path / "nowhere")


def test_fields_that_a_later_version_adds_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"created": "2026-01-01T12:00:00Z", "base_model": "x", "colour": "red"}')
    read = read_manifest(tmp_path)
    assert read is not None
    assert read.calibration == Calibration()


def test_pickles_are_refused_unless_safetensors_stand_beside_them(tmp_path: Path) -> None:
    with pytest.raises(CheckpointBroken, match=r"no \*\.safetensors weights"):
        refuse_pickles(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointBroken, match=r"pickle \(pytorch_model\.bin\)"):
        refuse_pickles(tmp_path)
    (tmp_path / "model.safetensors").touch()
    refuse_pickles(tmp_path)
