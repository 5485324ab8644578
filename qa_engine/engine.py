"""The async front of a reader: many asks come in, one worker drives the model, each ask gets its reading.

An ask takes three steps: its text is encoded, its windows are read, what was found is decoded. The model works on the
windows of whoever waits, across chats, while other asks are being encoded and decoded; an idle engine reads at once.
The reader can be swapped between two batches: no ask waits for it, fails by it or sees two models. Knows nothing of
where asks come from.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from types import TracebackType
from typing import Self

from cachetools import LRUCache

from qa_engine.errors import DuwenError, EngineBusy, EngineClosed, EngineTimeout
from qa_engine.memory import give_back_freed_memory
from qa_engine.reader import Ask, Reader, Reading, WindowSpans
from qa_engine.windows import Window

log = logging.getLogger(__name__)

BATCH_TOKENS = {"cpu": 4_096}
"""How many tokens one batch takes, by device: about what a batch should last, so that a short question behind it waits
for that one alone (on two cores a fifth of a second)."""
BATCH_TOKENS_ELSEWHERE = 32_768
TURN_WINDOWS = 8
"""How many windows an ask gets read before it is another's turn."""
ANSWERS_KEPT = 4_096
LONG_CHARACTERS = 20_000
"""From this length on, encoding a context takes long enough that others should not wait for it."""


@dataclass(eq=False)
class _Turn:
    """An ask whose windows wait for the model, or are being read."""

    reader: Reader
    windows: Sequence[Window]
    spans: list[WindowSpans] = field(default_factory=list)
    all_read: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def next_windows(self) -> Sequence[Window]:
        return self.windows[len(self.spans) : len(self.spans) + TURN_WINDOWS]


class Engine:
    """Use as `async with Engine(reader) as engine: await engine.ask(question, context)`.

    `reader_since` is when the present reader began to serve.
    """

    def __init__(self, reader: Reader, *, max_waiting: int = 256) -> None:
        self._reader = reader
        self._max_waiting = max_waiting
        self._turns: deque[_Turn] = deque()
        self._has_work = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._asks: set[asyncio.Task[Reading]] = set()
        self._tidying: set[asyncio.Task[None]] = set()
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._encode_thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._encode_long_thread = ThreadPoolExecutor(1, thread_name_prefix="encode-long")
        self._decode_thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._answers = _no_answers()
        self.reader_since = datetime.now(UTC)

    @property
    def reader(self) -> Reader:
        """The reader that the next ask will use."""
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
        for ask in self._asks:
            ask.cancel()
        if unfinished := self._asks | self._tidying:
            await asyncio.wait(unfinished)
        for thread in (self._model_thread, self._encode_thread, self._encode_long_thread, self._decode_thread):
            thread.shutdown(wait=False, cancel_futures=True)

    async def ask(
        self, question: str, context: str, *, top_k: int = 1, timeout_seconds: float | None = None
    ) -> Reading:
        """Read `question` on `context`, together with whatever else waits; what was asked before is known.

        Raises EngineBusy at once when too many asks wait, EngineTimeout after `timeout_seconds`, EngineClosed when the
        engine is not running, ReadError for a question that cannot be read. Of a cancelled ask nothing more is read.
        """
        if self._worker is None:
            raise EngineClosed("the engine is not running")
        key = (question, blake2b(context.encode("utf-8", "surrogatepass")).digest(), top_k)
        answers = self._answers  # a swap, or whoever wants to be forgotten, puts others in their place
        reading = answers.get(key)
        if reading is None:
            if len(self._asks) >= self._max_waiting:
                raise EngineBusy(f"{len(self._asks)} questions are waiting; try again in a moment")
            reader = self._reader
            steps = asyncio.create_task(self._three_steps(reader, Ask(question, context, top_k)))
            self._asks.add(steps)
            steps.add_done_callback(self._asks.discard)
            try:
                async with asyncio.timeout(timeout_seconds):
                    reading = await steps
            except TimeoutError:
                raise EngineTimeout(f"no answer within {timeout_seconds:g} seconds") from None
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._worker is None and not (task and task.cancelling()):
                    raise EngineClosed("the engine has been stopped") from None
                raise
            except DuwenError:
                raise
            except Exception:
                log.exception("a question could not be read")
                raise
            answers[key] = reading
        else:
            await asyncio.sleep(0)  # who asks again and again must not keep the loop to itself
        return reading

    async def swap(self, reader: Reader) -> None:
        """From the next ask on, `reader` answers; asks that have begun end with the one before. It should be warm."""
        self._reader = reader
        self._answers = _no_answers()
        self.reader_since = datetime.now(UTC)
        log.info("%s answers from now on", reader.name)
        tidying = asyncio.create_task(_give_back_memory_after(frozenset(self._asks)))
        self._tidying.add(tidying)
        tidying.add_done_callback(self._tidying.discard)

    def forget(self) -> None:
        """Keep no text and no answer that was: somebody wants theirs to be gone. Who asks again, pays again."""
        self._answers = _no_answers()
        self._reader.contexts.clear()

    async def _three_steps(self, reader: Reader, ask: Ask) -> Reading:
        loop = asyncio.get_running_loop()
        thread = self._encode_long_thread if len(ask.context) > LONG_CHARACTERS else self._encode_thread
        encoded = await loop.run_in_executor(thread, reader.encode, ask)
        turn = _Turn(reader, encoded.windows)
        if turn.windows:
            self._turns.append(turn)
            self._has_work.set()
            try:
                await turn.all_read
            finally:
                with contextlib.suppress(ValueError):
                    self._turns.remove(turn)  # cancelled before all was read
        return await loop.run_in_executor(self._decode_thread, reader.decode, encoded, turn.spans)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_work.wait()
            batch = self._next_batch()
            if not batch:
                self._has_work.clear()
                continue
            reader, portions = batch[0].reader, [turn.next_windows() for turn in batch]
            outcomes = await loop.run_in_executor(self._model_thread, _read, reader, portions)
            for turn, outcome in zip(batch, outcomes, strict=True):
                self._take(turn, outcome)
            del batch, reader, turn  # while the engine idles, nothing of a reader that was replaced is held

    def _next_batch(self) -> list[_Turn]:
        """Those that have waited longest and are with the same reader, as many as are read well together."""
        batch: list[_Turn] = []
        tokens = 0
        while self._turns:
            turn = self._turns[0]
            tokens += sum(map(len, turn.next_windows()))
            if batch and (turn.reader is not batch[0].reader or tokens > _batch_tokens(turn.reader)):
                break
            batch.append(self._turns.popleft())
        return batch

    def _take(self, turn: _Turn, outcome: "list[WindowSpans] | Exception") -> None:
        """What came of a turn's portion; who is not done yet waits for another."""
        if turn.all_read.done():  # nobody waits any more
            return
        if isinstance(outcome, Exception):
            turn.all_read.set_exception(outcome)
            return
        turn.spans += outcome
        if len(turn.spans) == len(turn.windows):
            turn.all_read.set_result(None)
        else:
            self._turns.append(turn)


def _no_answers() -> LRUCache[tuple[str, bytes, int], Reading]:
    return LRUCache(ANSWERS_KEPT)


async def _give_back_memory_after(asks: frozenset[asyncio.Task[Reading]]) -> None:
    """Once `asks`, the last to use a reader that was replaced, have ended and let go of it."""
    if asks:
        await asyncio.wait(asks)
    del asks
    await asyncio.to_thread(give_back_freed_memory)


def _batch_tokens(reader: Reader) -> int:
    return BATCH_TOKENS.get(reader.device.type, BATCH_TOKENS_ELSEWHERE)


def _read(reader: Reader, portions: Sequence[Sequence[Window]]) -> list[list[WindowSpans] | Exception]:
    """Read all together; when that fails, ask by ask, so that a bad one spoils only itself."""
    try:
        spans = iter(reader.forward([window for portion in portions for window in portion]))
        return [[next(spans) for _ in portion] for portion in portions]
    except Exception as error:  # whatever it is, it belongs to an ask, not to the worker
        if len(portions) == 1:
            return [error]
        return [outcome for portion in portions for outcome in _read(reader, [portion])]
