"""Many ask at once, one model reads: each gets its own reading, in turn, and nobody pays for another's fault."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from qa_engine.engine import CHARACTERS_AT_ONCE, Engine
from qa_engine.errors import EmptyQuestion, EngineBusy, EngineClosed, EngineTimeout
from qa_engine.reader import Ask, EncodedAsk, Reader, Reading

CONTEXT = "中国人民的时间。他在家里工作，电话是3。"
PATIENCE_SECONDS = 30


class GatedReader(Reader):
    """A real reader that reads when the test opens its gate, writes down its batches, and chokes on one question."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self.gate = threading.Event()
        self.is_reading = threading.Event()
        self.batches: list[list[str]] = []

    def read_many(self, asks: Any, *, progress: bool = False) -> list[Reading]:
        self.batches.append([ask.question for ask in asks])
        self.is_reading.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        return super().read_many(asks, progress=progress)

    def encode(self, ask: Ask) -> EncodedAsk:
        if ask.question == "poison":
            raise MemoryError
        return super().encode(ask)

    async def begins(self) -> None:
        """Wait until a batch is with the model."""
        assert await asyncio.to_thread(self.is_reading.wait, PATIENCE_SECONDS)


@pytest.fixture
def reader(wordpiece_model: Path) -> GatedReader:
    return GatedReader.load(wordpiece_model, device="cpu", dtype="float32")


async def waiting(engine: Engine, *questions: str, context: str = CONTEXT) -> list[asyncio.Task[Reading]]:
    """Ask all of them in this order, and return when they wait."""
    tasks = [asyncio.create_task(engine.ask(question, context)) for question in questions]
    await asyncio.sleep(0)  # each task runs until it waits
    return tasks


async def test_an_ask_gets_the_reader_s_reading(reader: GatedReader) -> None:
    reader.gate.set()
    async with Engine(reader) as engine:
        assert engine.reader is reader
        reading = await engine.ask("他在哪里？", CONTEXT, top_k=3)
    assert reading == reader.read("他在哪里？", CONTEXT, top_k=3)
    assert len(reading.answers) == 3


async def test_who_waits_is_read_together_and_in_turn(reader: GatedReader) -> None:
    async with Engine(reader) as engine:
        (first,) = await waiting(engine, "first")
        await reader.begins()
        others = await waiting(engine, "a", "b", "c", "d")
        assert not first.done()
        reader.gate.set()
        readings = await asyncio.gather(first, *others)
    assert reader.batches == [["first"], ["a", "b", "c", "d"]]
    assert [reading.no_answer_score for reading in readings] == pytest.approx(
        [reader.read(question, CONTEXT).no_answer_score for question in ("first", "a", "b", "c", "d")], rel=1e-3
    )


async def test_a_long_document_does_not_drag_others_into_its_batch(reader: GatedReader) -> None:
    async with Engine(reader) as engine:
        tasks = await waiting(engine, "first")
        await reader.begins()
        tasks += await waiting(engine, "short")
        tasks += await waiting(engine, "long", context=CONTEXT * (CHARACTERS_AT_ONCE // len(CONTEXT) + 1))
        tasks += await waiting(engine, "short again", "and again")
        reader.gate.set()
        await asyncio.gather(*tasks)
    assert reader.batches == [["first"], ["short"], ["long"], ["short again", "and again"]]


async def test_one_too_many_is_told_at_once(reader: GatedReader) -> None:
    async with Engine(reader, max_waiting=2) as engine:
        tasks = await waiting(engine, "being read")
        await reader.begins()
        tasks += await waiting(engine, "waits", "waits too")
        with pytest.raises(EngineBusy, match="2 questions are waiting"):
            await engine.ask("one too many", CONTEXT)
        reader.gate.set()
        assert all(isinstance(reading, Reading) for reading in await asyncio.gather(*tasks))
        assert isinstance(await engine.ask("now there is room", CONTEXT), Reading)


async def test_who_gave_up_waiting_is_not_read(reader: GatedReader) -> None:
    async with Engine(reader, max_waiting=2) as engine:
        (in_the_model,) = await waiting(engine, "in the model")
        await reader.begins()
        with pytest.raises(EngineTimeout, match=r"no answer within 0\.01 seconds"):
            await engine.ask("out of time", CONTEXT, timeout_seconds=0.01)
        cancelled, patient = await waiting(engine, "cancelled", "patient")
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        (also_patient,) = await waiting(engine, "in the place that became free")
        reader.gate.set()
        await asyncio.gather(in_the_model, patient, also_patient)
    assert reader.batches == [["in the model"], ["patient", "in the place that became free"]]


async def test_who_gives_up_while_being_read_harms_nobody(reader: GatedReader) -> None:
    async with Engine(reader) as engine:
        late = asyncio.create_task(engine.ask("late", CONTEXT, timeout_seconds=0.01))
        (cancelled,) = await waiting(engine, "cancelled")
        await reader.begins()
        cancelled.cancel()
        with pytest.raises(EngineTimeout):
            await late
        reader.gate.set()
        assert isinstance(await engine.ask("next", CONTEXT), Reading)


@pytest.mark.parametrize(("bad", "error"), [(" ", EmptyQuestion), ("poison", MemoryError)])
async def test_a_bad_ask_spoils_only_itself(reader: GatedReader, bad: str, error: type[Exception]) -> None:
    async with Engine(reader) as engine:
        (first,) = await waiting(engine, "first")
        await reader.begins()
        before, spoilt, after = await waiting(engine, "before", bad, "after")
        reader.gate.set()
        with pytest.raises(error):
            await spoilt
        for task in (first, before, after):
            assert isinstance(await task, Reading)
        assert engine.answered == 3
        assert (await engine.ask("later", CONTEXT)).checkpoint == reader.name
    assert reader.batches[1] == ["before", bad, "after"]


async def test_a_fault_of_ours_is_logged_and_one_of_the_asker_s_is_not(
    reader: GatedReader, caplog: pytest.LogCaptureFixture
) -> None:
    reader.gate.set()
    caplog.clear()
    async with Engine(reader) as engine:
        with pytest.raises(EmptyQuestion):
            await engine.ask("", CONTEXT)
        assert not caplog.records
        with pytest.raises(MemoryError):
            await engine.ask("poison", CONTEXT)
    (record,) = caplog.records
    assert record.message == "a question could not be read"
    assert record.exc_info is not None


async def test_a_new_reader_answers_from_the_next_batch_on(reader: GatedReader, unigram_model: Path) -> None:
    new = Reader.load(unigram_model, device="cpu", dtype="float32")
    async with Engine(reader) as engine:
        served_since = engine.reader_since
        (old_ask,) = await waiting(engine, "being read")
        await reader.begins()
        (new_ask,) = await waiting(engine, "waits")
        await engine.swap(new)
        assert engine.reader is new
        assert engine.reader_since > served_since
        reader.gate.set()
        assert (await old_ask).checkpoint == reader.name
        assert await new_ask == new.read("waits", CONTEXT)
    assert reader.batches == [["being read"]]


async def test_an_engine_that_does_not_run_says_so(reader: GatedReader) -> None:
    engine = Engine(reader)
    with pytest.raises(EngineClosed):
        await engine.ask("too early", CONTEXT)
    async with engine:
        pass
    with pytest.raises(EngineClosed):
        await engine.ask("too late", CONTEXT)


async def test_a_stopped_engine_lets_nobody_wait(reader: GatedReader) -> None:
    async with Engine(reader) as engine:
        tasks = await waiting(engine, "being read")
        await reader.begins()
        tasks += await waiting(engine, "waits", "waits too")
    for task in tasks:
        with pytest.raises(EngineClosed):
            await task
    reader.gate.set()


async def test_every_one_of_many_gets_its_own_reading(wordpiece_model: Path) -> None:
    reader = Reader.load(wordpiece_model, device="cpu", dtype="float32")
    asks = [(f"他在哪里{number}？", CONTEXT * (1 + number % 9)) for number in range(60)]
    async with Engine(reader) as engine:
        readings = await asyncio.gather(*(engine.ask(*ask) for ask in asks))
        assert engine.answered == 60
    for ask, reading in zip(asks, readings, strict=True):
        alone = reader.read(*ask)
        assert [(a.start, a.end) for a in reading.answers] == [(a.start, a.end) for a in alone.answers]
        assert reading.no_answer_score == pytest.approx(alone.no_answer_score, rel=1e-3)
