"""Sees a new checkpoint, verifies, loads, warms and swaps it; a bad one is refused once and remembered.

An APScheduler job looks into the folder every few seconds. All work happens in a thread while the old reader answers.
What makes a checkpoint good is left to `checkpoints` (files) and `reader` (weights).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from qa_engine.checkpoints import candidates
from qa_engine.engine import Engine
from qa_engine.errors import CheckpointError
from qa_engine.reader import BUNDLED, Reader

log = logging.getLogger(__name__)

_Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Loaded:
    """A new checkpoint answers from now on."""

    name: str


@dataclass(frozen=True)
class Refused:
    """A checkpoint was found bad; it is not tried again until its files change."""

    name: str
    reason: str


Change = Loaded | Refused


def load_newest(folder: Path, *, device: str = "auto", dtype: str = "auto") -> Reader:
    """The newest good checkpoint in `folder`, else the bundled one. Bad ones are logged.

    Raises CheckpointError only where not even the bundled one can be loaded.
    """
    for path in candidates(folder):
        outcome = _load(path, device, dtype)
        if isinstance(outcome, Reader):
            return outcome
    return Reader.load(device=device, dtype=dtype)


class CheckpointWatcher:
    """Keeps an engine on the newest good checkpoint of a folder; when the last one is deleted, on the bundled one."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        on_change: Callable[[Change], Awaitable[None]] | None = None,
    ) -> None:
        self.engine = engine
        self.folder = folder
        self.device = device
        self.dtype = dtype
        self.on_change = on_change
        self._refused: dict[Path, _Fingerprint] = {}
        self._last_seen: dict[Path, _Fingerprint] = {}
        self._answers_from_folder = False
        self._scheduler: AsyncIOScheduler | None = None
        self._looking = asyncio.Lock()

    def start(self, poll_seconds: float) -> None:
        """Look now and every `poll_seconds` from now on."""
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.add_job(
            self.look,
            "interval",
            seconds=poll_seconds,
            next_run_time=datetime.now(UTC),
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        self._scheduler.start()

    async def stop(self) -> None:
        """No further look; one that is under way is waited for."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.remove_all_jobs()
            async with self._looking:  # shutting down would cancel it
                scheduler.shutdown(wait=False)

    async def look(self) -> Change | None:
        """Look once: the newest checkpoint is loaded or refused, unless it answers already or was refused before.

        A refused one gets another try when its files have changed and then stayed the same from one look to the
        next, so that a folder that is still being copied is refused only once. Returns what changed, after
        `on_change` has heard of it; None when there is nothing new.
        """
        async with self._looking:
            change = await self._look()
            if change is not None and self.on_change is not None:
                await self.on_change(change)
            return change

    async def _look(self) -> Change | None:
        for path in await asyncio.to_thread(candidates, self.folder):
            if path.name == self.engine.reader.name:
                self._answers_from_folder = True
                return None
            fingerprint = await asyncio.to_thread(_fingerprint, path)
            if path in self._refused:
                is_still_growing = fingerprint != self._last_seen[path]
                self._last_seen[path] = fingerprint
                if is_still_growing or fingerprint == self._refused[path]:
                    continue
            outcome = await asyncio.to_thread(_load, path, self.device, self.dtype)
            if isinstance(outcome, Refused):
                self._refused[path] = self._last_seen[path] = fingerprint
                return outcome
            return await self._swap(outcome, from_folder=True)
        if not self._answers_from_folder:
            return None
        log.warning("%s is no longer in %s, nor another good one", self.engine.reader.name, self.folder)
        self._answers_from_folder = False
        outcome = await asyncio.to_thread(_load, BUNDLED, self.device, self.dtype)
        return outcome if isinstance(outcome, Refused) else await self._swap(outcome, from_folder=False)

    async def _swap(self, reader: Reader, *, from_folder: bool) -> Loaded:
        await self.engine.swap(reader)
        self._answers_from_folder = from_folder
        return Loaded(reader.name)


def _load(path: Path, device: str, dtype: str) -> Reader | Refused:
    try:
        return Reader.load(path, device=device, dtype=dtype)
    except CheckpointError as error:
        reason = str(error)
    except Exception as error:  # memory, disk, device: whatever it is, the old reader goes on
        summary = str(error).strip().split("\n")[0]
        reason = f"it does not fit or does not run here: {type(error).__name__}: {summary}"
    log.error("checkpoint %s is refused: %s. It is tried again when its files change.", path, reason)
    return Refused(path.name, reason)


def _fingerprint(path: Path) -> _Fingerprint:
    """Names, sizes and times of a checkpoint's files: what changes when somebody goes on copying or mends it."""
    entries = []
    for file in sorted(path.rglob("*")):
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        entries.append((str(file.relative_to(path)), status.st_size, status.st_mtime_ns))
    return tuple(entries)
