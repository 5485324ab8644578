"""The async front of a reader: many asks come in, one worker drives the model, each ask gets its reading.

Whoever waits when the model becomes free is read together, across chats; an idle engine reads at once. The reader
can be swapped between two batches: no ask waits for it, fails by it or sees two models. Knows nothing of where asks
come from.
"""

import asyncio
import contextlib
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from qa_engine.errors import DuwenError, EngineBusy, EngineClosed, EngineTimeout
from qa_engine.reader import Ask, Reader, Reading

log = logging.getLogger(__name__)

CHARACTERS_AT_ONCE = 8_000
"""Characters of context that one batch takes at most (one ask always fits): about what a batch should last, so that a
short question behind a long document waits for that one alone."""


@dataclass(eq=False)
class _Waiting:
    ask: Ask
    reading: asyncio.Future[Reading] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Engine:
    """Use as `async with Engine(reader) as engine: await engine.ask(question, context)`.

    `answered` counts the readings given out; `reader_since` is when the present reader began to serve.
    """

    def __init__(self, reader: Reader, *, max_waiting: int = 256) -> None:
        self._reader = reader
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._has_work = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self.reader_since = datetime.now(UTC)
        self.answered = 0

    @property
    def reader(self) -> Reader:
        """The reader that the next batch will use."""
        return self._reader

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work(), name="engine")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; whoever still waits gets EngineClosed."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
        while self._waiting:
            _settle(self._waiting.popleft(), EngineClosed("the engine has been stopped"))
        self._thread.shutdown(wait=False)

    async def ask(
        self, question: str, context: str, *, top_k: int = 1, timeout_seconds: float | None = None
    ) -> Reading:
        """Read `question` on `context`, together with whatever else waits.

        Raises EngineBusy at once when too many asks wait, EngineTimeout after `timeout_seconds`, EngineClosed when the
        engine is not running, ReadError for a question that cannot be read. A cancelled ask that waits is not read.
        """
        if self._worker is None:
            raise EngineClosed("the engine is not running")
        if len(self._waiting) >= self._max_waiting:
            raise EngineBusy(f"{len(self._waiting)} questions are waiting; try again in a moment")
        waiting = _Waiting(Ask(question, context, top_k))
        self._waiting.append(waiting)
        self._has_work.set()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await waiting.reading
        except TimeoutError:
            raise EngineTimeout(f"no answer within {timeout_seconds:g} seconds") from None
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiting)  # timed out or cancelled before its turn

    async def swap(self, reader: Reader) -> None:
        """From the next batch on, `reader` answers. It should be warm already."""
        self._reader = reader
        self.reader_since = datetime.now(UTC)
        log.info("%s answers from now on", reader.name)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_work.wait()
            batch = self._next_batch()
            if not batch:
                self._has_work.clear()
                continue
            asks = [waiting.ask for waiting in batch]
            try:
                outcomes = await loop.run_in_executor(self._thread, _read, self._reader, asks)
            except asyncio.CancelledError:
                for waiting in batch:
                    _settle(waiting, EngineClosed("the engine has been stopped"))
                raise
            for waiting, outcome in zip(batch, outcomes, strict=True):
                _settle(waiting, outcome)
            self.answered += sum(isinstance(outcome, Reading) for outcome in outcomes)

    def _next_batch(self) -> list[_Waiting]:
        """The asks that have waited longest, as many as are read well together."""
        batch: list[_Waiting] = []
        characters = 0
        while self._waiting and (not batch or characters + len(self._waiting[0].ask.context) <= CHARACTERS_AT_ONCE):
            waiting = self._waiting.popleft()
            characters += len(waiting.ask.context)
            batch.append(waiting)
        return batch


def _read(reader: Reader, asks: list[Ask]) -> list[Reading | Exception]:
    """Read all together; when that fails, one by one, so that a bad ask spoils only itself."""
    try:
        return list(reader.read_many(asks))
    except Exception as error:  # whatever it is, it belongs to an ask, not to the worker
        if len(asks) == 1:
            if not isinstance(error, DuwenError):
                log.exception("a question could not be read")
            return [error]
        return [outcome for ask in asks for outcome in _read(reader, [ask])]


def _settle(waiting: _Waiting, outcome: Reading | Exception) -> None:
    if waiting.reading.done():  # nobody waits any more
        return
    if isinstance(outcome, Exception):
        waiting.reading.set_exception(outcome)
    else:
        waiting.reading.set_result(outcome)
