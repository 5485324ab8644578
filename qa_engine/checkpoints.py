"""A checkpoint on disk: a folder that transformers can load, plus `manifest.json`, which makes it ours.

The manifest says where the checkpoint comes from, how to read with it, and what every file must hash to. It is written
last, beside the final name, and the whole folder is renamed into place: a half-written checkpoint has no name.
Knows files, not models: whether the weights make sense is found out by `reader`.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal

import psutil
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from qa_engine.errors import CheckpointBroken, CheckpointError, CheckpointMissing

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT_VERSION: Literal[1] = 1
_UNFINISHED = ".unfinished-"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class DataSource(_Part):
    """A file that a checkpoint was trained or measured on."""

    name: str
    sha256: str
    questions: int


class Calibration(_Part):
    """How scores become probabilities, and from which probability on "the context does not say" is the answer.

    Scores are divided by the temperature; `bias` is added to the logarithm of an answer's odds (Platt 1999).
    """

    temperature: float = Field(default=1.0, gt=0)
    bias: float = 0.0
    no_answer_threshold: float = Field(default=0.5, ge=0, le=1)


class WindowSettings(_Part):
    """Read as trained: these lengths, in tokens, are part of what the model learned.

    `length_weight` makes long answers less likely than the model says, see `spans.best_spans`.
    """

    max_tokens: int = Field(default=512, ge=64)
    stride: int = Field(default=128, ge=0)
    max_answer_tokens: int = Field(default=64, ge=1)
    length_weight: float = Field(default=0.0, ge=0)


class FileRecord(_Part):
    sha256: str
    bytes: int


class Manifest(_Part):
    """What `manifest.json` holds. `files` lists every other file that is needed to load the checkpoint."""

    format_version: Literal[1] = FORMAT_VERSION
    created: AwareDatetime
    base_model: str
    data: tuple[DataSource, ...] = ()  # trained on
    measured_on: tuple[DataSource, ...] = ()
    calibrated_on: tuple[DataSource, ...] = ()  # none: training data that was held back
    metrics: dict[str, dict[str, float]] = {}  # by the data they were measured on; EM and F1 in per cent
    calibration: Calibration = Calibration()
    windows: WindowSettings = WindowSettings()
    command: str | None = None
    files: dict[str, FileRecord] = {}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(folder: Path, manifest: Manifest, write_files: Callable[[Path], None]) -> Path:
    """Let `write_files` fill a new checkpoint, seal it with the manifest, and give it its name in `folder`.

    The name is the manifest's time of creation; the returned folder did not exist a moment before, and is complete.
    """
    name = manifest.created.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    unfinished = folder / f"{_UNFINISHED}{os.getpid()}-{name}"
    unfinished.mkdir()
    write_files(unfinished)
    _seal(unfinished, manifest)
    final, attempt = folder / name, 1
    while True:
        try:
            unfinished.rename(final)  # fails where a checkpoint of that name stands: folders are never replaced
            break
        except OSError:
            if not final.exists():
                raise
            attempt += 1
            final = folder / f"{name}-{attempt}"
    _sync(folder)
    return final


def _seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with every file's sha256 and bring all of it to the disk."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    records = {
        path.relative_to(folder).as_posix(): FileRecord(sha256=sha256_of(path), bytes=path.stat().st_size)
        for path in paths
    }
    sealed = manifest.model_copy(update={"files": records})
    (folder / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for path in [folder, *folder.rglob("*")]:  # a umask, and some writers, make them for their user alone
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in [*paths, folder / MANIFEST, folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove what killed trainings left behind; another process that still lives keeps its own."""
    for leftover in folder.glob(f"{_UNFINISHED}*"):
        pid = leftover.name.removeprefix(_UNFINISHED).split("-")[0]
        if not (pid.isdigit() and int(pid) != os.getpid() and psutil.pid_exists(int(pid))):
            shutil.rmtree(leftover, ignore_errors=True)


def read_manifest(checkpoint: Path) -> Manifest | None:
    """The checkpoint's manifest, or None for a folder that was not published by us.

    Raises CheckpointMissing where there is no folder, CheckpointBroken for a manifest that cannot be understood.
    """
    if not checkpoint.is_dir():
        raise CheckpointMissing(f"there is no checkpoint at {checkpoint}")
    path = checkpoint / MANIFEST
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointBroken(f"{path.name} is not understood: {where}: {first['msg']}") from None


def verify(checkpoint: Path, manifest: Manifest) -> None:
    """Hold every file against the manifest; raises CheckpointBroken that names the first one that differs."""
    for name, record in manifest.files.items():
        path = checkpoint / name
        if not path.is_file():
            raise CheckpointBroken(f"{name} is missing")
        if path.stat().st_size != record.bytes:
            raise CheckpointBroken(f"{name} has {path.stat().st_size} bytes instead of {record.bytes}")
        if sha256_of(path) != record.sha256:
            raise CheckpointBroken(f"{name} was altered: its sha256 is not the manifest's")
    weights = [path for path in checkpoint.glob("*.safetensors") if path.name in manifest.files]
    if not weights:
        raise CheckpointBroken("the manifest lists no *.safetensors weights")


def refuse_pickles(checkpoint: Path) -> None:
    """Raise CheckpointBroken where the only weights are pickles, which run code when they are loaded."""
    if not any(checkpoint.glob("*.safetensors")):
        pickles = sorted(path.name for path in checkpoint.iterdir() if path.suffix in _PICKLES)
        if pickles:
            raise CheckpointBroken(
                f"its weights are a pickle ({pickles[0]}), which could run any code: convert them to safetensors"
            )
        raise CheckpointBroken("it has no *.safetensors weights")


def candidates(folder: Path) -> list[Path]:
    """The published checkpoints in `folder`, newest first; whether they are good is still to be seen.

    Sorted by the manifest's time; one whose manifest is not understood goes by the file's own time. What may not be
    looked into is passed over.
    """
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        try:
            if path.is_dir() and not path.name.startswith(".") and (path / MANIFEST).is_file():
                found.append((_created(path), path.name, path))
        except OSError as error:
            _warn_of_unreadable(path, error.strerror)
    return [path for _, _, path in sorted(found, reverse=True)]


@cache  # once: the folder is looked at every few seconds
def _warn_of_unreadable(path: Path, reason: str | None) -> None:
    log.warning("%s is passed over: %s; if it is a checkpoint, make it readable: chmod -R a+rX", path, reason)


def _created(checkpoint: Path) -> datetime:
    try:
        manifest = read_manifest(checkpoint)
    except (CheckpointError, FileNotFoundError):
        manifest = None
    if manifest is not None:
        return manifest.created
    try:
        return datetime.fromtimestamp((checkpoint / MANIFEST).stat().st_mtime, UTC)
    except FileNotFoundError:  # removed while we looked
        return datetime.min.replace(tzinfo=UTC)
