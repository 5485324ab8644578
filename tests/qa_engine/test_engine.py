"""Many ask at once, one model reads: each gets its own reading, in turn, and nobody pays for another's fault."""

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qa_engine.engine import BATCH_TOKENS, LONG_CHARACTERS, TURN_WINDOWS, Engine
from qa_engine.errors import EmptyQuestion, EngineBusy, EngineClosed, EngineTimeout
from qa_engine.reader import Ask, EncodedAsk, Reader, Reading, WindowSpans
from qa_engine.spans import TokenSpans
from qa_engine.windows import Window

CONTEXT = "中国人民的时间。他在家里工作，电话是3。"
PATIENCE_SECONDS = 30


class GatedReader(Reader):
    """A real reader that reads when the test opens its gate, writes down its batches, and chokes on some questions.

    Questions are told apart by their length: `batches` holds the windows' lengths.
    """

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self.gate = threading.Event()
        self.is_reading = threading.Event()
        self.batches: list[list[int]] = []
        self.encoded: list[str] = []
        self.poison: set[int] = set()

    def forward(self, windows: Sequence[Window]) -> list[WindowSpans]:
        if windows and hasattr(self, "batches") and self.is_open:
            self.batches.append([len(window) for window in windows])
            self.is_reading.set()
            assert self.gate.wait(PATIENCE_SECONDS)
            if not self.poison.isdisjoint(len(window) for window in windows):
                raise MemoryError
        return super().forward(windows)

    def encode(self, ask: Ask) -> EncodedAsk:
        self.encoded.append(ask.question)
        if ask.question == "poison":
            raise MemoryError
        return super().encode(ask)

    is_open = False  # set when it is warm: what warms it up is no batch

    async def begins(self) -> None:
        """Wait until a batch is with the model."""
        assert await asyncio.to_thread(self.is_reading.wait, PATIENCE_SECONDS)


@pytest.fixture
def reader(wordpiece_model: Path) -> GatedReader:
    reader = GatedReader.load(wordpiece_model, device="cpu", dtype="float32")
    reader.is_open = True
    reader.encoded.clear()
    return reader


def length(reader: Reader, question: str, context: str = CONTEXT) -> int:
    """Of the one window that this takes."""
    (window,) = Reader.encode(reader, Ask(question, context)).windows
    return len(window)


async def waiting(engine: Engine, *questions: str, context: str = CONTEXT) -> list[asyncio.Task[Reading]]:
    """Ask all of them in this order, and return when their windows wait."""
    reader = engine.reader
    assert isinstance(reader, GatedReader)
    expected = len(reader.encoded) + len(questions)
    tasks = [asyncio.create_task(engine.ask(question, context)) for question in questions]
    for _ in range(PATIENCE_SECONDS * 1000):
        await asyncio.sleep(0.001)  # what the thread has encoded comes back to the loop
        if len(reader.encoded) >= expected:
            break
    await asyncio.sleep(0.02)
    return tasks


async def test_an_ask_gets_the_reader_s_reading(reader: GatedReader) -> None:
    reader.gate.set()
    async with Engine(reader) as engine:
        assert engine.reader is reader
        reading = await engine.ask("他在哪里？", CONTEXT, top_k=3)
    assert reading == reader.read("他在哪里？", CONTEXT, top_k=3)
    assert reading.answers


async def test_who_waits_is_read_together_and_in_turn(reader: GatedReader) -> None:
    questions = ["一", "一二", "一二三", "一二三四"]
    async with Engine(reader) as engine:
        (first,) = await waiting(engine, "他在哪里工作？")
        await reader.begins()
        others = await waiting(engine, *questions)
        assert not first.done()
        reader.gate.set()
        readings = await asyncio.gather(first, *others)
    assert reader.batches == [[length(reader, "他在哪里工作？")], [length(reader, question) for question in questions]]
    assert [reading.no_answer_score for reading in readings] == pytest.approx(
        [reader.read(question, CONTEXT).no_answer_score for question in ("他在哪里工作？", *questions)], rel=1e-3
    )


async def test_short_questions_slip_in_between_the_parts_of_a_long_document(reader: GatedReader) -> None:
    long_context = CONTEXT * 180  # below the length from which on only passages are read
    windows = len(Reader.encode(reader, Ask("他？", long_context)).windows)
    assert windows > TURN_WINDOWS
    async with Engine(reader) as engine:
        (first,) = await waiting(engine, "一二三")
        await reader.begins()
        (long,) = await waiting(engine, "他？", context=long_context)
        short = await waiting(engine, "一", "一二")
        reader.gate.set()
        await asyncio.gather(first, *short)
        assert isinstance(await long, Reading)
    assert all(sum(batch) <= BATCH_TOKENS["cpu"] or len(batch) <= TURN_WINDOWS for batch in reader.batches)
    lengths = [length(reader, question) for question in ("一", "一二")]
    of_short = max(place for place, batch in enumerate(reader.batches) if set(lengths) & set(batch))
    assert of_short < len(reader.batches) - 1 or windows <= 2 * TURN_WINDOWS, "they did not wait for all of it"
    assert sum(len(batch) for batch in reader.batches) == windows + 3


async def test_a_long_document_that_is_being_encoded_holds_up_no_short_question(
    reader: GatedReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader.gate.set()
    long_context = CONTEXT * (LONG_CHARACTERS // len(CONTEXT) + 1)
    is_encoding, may_go_on = threading.Event(), threading.Event()
    encode = reader.encode

    def slow_with_long_ones(ask: Ask) -> EncodedAsk:
        if ask.context == long_context:
            is_encoding.set()
            assert may_go_on.wait(PATIENCE_SECONDS)
        return encode(ask)

    monkeypatch.setattr(reader, "encode", slow_with_long_ones)
    async with Engine(reader) as engine:
        long = asyncio.create_task(engine.ask("他？", long_context))
        assert await asyncio.to_thread(is_encoding.wait, PATIENCE_SECONDS)
        assert isinstance(await engine.ask("他？", CONTEXT, timeout_seconds=PATIENCE_SECONDS), Reading)
        assert not long.done()
        may_go_on.set()
        assert isinstance(await long, Reading)


class CountingReader(Reader):
    """A real reader that counts the tokens that go through its model, with and without padding."""

    computed = 0
    wanted = 0

    def _forward_group(self, windows: Sequence[Window]) -> TokenSpans:
        self.computed += len(windows) * max(map(len, windows))
        self.wanted += sum(map(len, windows))
        return super()._forward_group(windows)


async def test_of_what_the_model_computes_for_32_clients_a_twentieth_is_padding_at_most(wordpiece_model: Path) -> None:
    """Contexts as long as those of CMRC 2018: 200 to 950 characters, 500 in the middle."""
    reader = CountingReader.load(wordpiece_model, device="cpu", dtype="float32")
    reader.computed = reader.wanted = 0
    draw = random.Random(3)
    asks = [("他在哪里？"[: draw.randint(2, 5)] * 3, "中" * round(draw.triangular(200, 950, 480))) for _ in range(160)]

    async def client(number: int, engine: Engine) -> None:
        for question, context in asks[number::32]:
            await engine.ask(question, context)

    async with Engine(reader) as engine:
        await asyncio.gather(*(client(number, engine) for number in range(32)))
    assert reader.wanted > 160 * 200
    assert 1 - reader.wanted / reader.computed <= 0.05


async def test_what_was_asked_before_is_known_until_the_checkpoint_changes(
    reader: GatedReader, wordpiece_model: Path
) -> None:
    reader.gate.set()
    async with Engine(reader) as engine:
        first = await engine.ask("他在哪里？", CONTEXT)
        assert await engine.ask("他在哪里？", CONTEXT) == first
        assert len(reader.batches) == 1
        await engine.ask("他在哪里？", CONTEXT, top_k=2)
        await engine.ask("他在哪里？", CONTEXT + "他")
        assert len(reader.batches) == 3
        new = GatedReader.load(wordpiece_model, device="cpu", dtype="float32")
        new.is_open = True
        new.gate.set()
        await engine.swap(new)
        await engine.ask("他在哪里？", CONTEXT)
        assert len(new.batches) == 1


async def test_what_is_to_be_forgotten_is_kept_nowhere(reader: GatedReader) -> None:
    reader.gate.set()
    async with Engine(reader) as engine:
        await engine.ask("他在哪里？", CONTEXT)
        assert reader.contexts.kept_bytes
        engine.forget()
        assert not reader.contexts.kept_bytes
        await engine.ask("他在哪里？", CONTEXT)
        assert len(reader.batches) == 2


async def test_one_too_many_is_told_at_once(reader: GatedReader) -> None:
    async with Engine(reader, max_waiting=3) as engine:
        tasks = await waiting(engine, "being read", "waits", "waits too")
        with pytest.raises(EngineBusy, match="3 questions are waiting"):
            await engine.ask("one too many", CONTEXT)
        reader.gate.set()
        assert all(isinstance(reading, Reading) for reading in await asyncio.gather(*tasks))
        assert isinstance(await engine.ask("now there is room", CONTEXT), Reading)


async def test_who_gave_up_waiting_is_not_read(reader: GatedReader) -> None:
    async with Engine(reader, max_waiting=4) as engine:
        (in_the_model,) = await waiting(engine, "一二三四五六")
        await reader.begins()
        with pytest.raises(EngineTimeout, match=r"no answer within 0\.05 seconds"):
            await engine.ask("一二三四五", CONTEXT, timeout_seconds=0.05)
        cancelled, patient = await waiting(engine, "一二三四", "一")
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        (also_patient,) = await waiting(engine, "一二")
        reader.gate.set()
        await asyncio.gather(in_the_model, patient, also_patient)
    assert reader.batches[1:] == [[length(reader, "一"), length(reader, "一二")]]


async def test_who_gives_up_while_being_read_harms_nobody(reader: GatedReader) -> None:
    async with Engine(reader) as engine:
        late = asyncio.create_task(engine.ask("late", CONTEXT, timeout_seconds=0.05))
        (cancelled,) = await waiting(engine, "cancelled")
        await reader.begins()
        cancelled.cancel()
        with pytest.raises(EngineTimeout):
            await late
        reader.gate.set()
        assert isinstance(await engine.ask("next", CONTEXT), Reading)


@pytest.mark.parametrize(("bad", "error"), [(" ", EmptyQuestion), ("poison", MemoryError), ("一二三四五", MemoryError)])
async def test_a_bad_ask_spoils_only_itself(reader: GatedReader, bad: str, error: type[Exception]) -> None:
    """One that cannot be encoded, and one on which the model fails in the middle of a batch of good ones."""
    reader.poison = {length(reader, "一二三四五")}
    reader.encoded.clear()
    async with Engine(reader) as engine:
        (first,) = await waiting(engine, "一")
        await reader.begins()
        before, spoilt, after = await waiting(engine, "一二", bad, "一二三")
        reader.gate.set()
        with pytest.raises(error):
            await spoilt
        for task in (first, before, after):
            assert isinstance(await task, Reading)
        assert (await engine.ask("later", CONTEXT)).checkpoint == reader.name


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


async def test_a_new_reader_answers_who_comes_after_the_swap_and_the_old_one_who_came_before(
    reader: GatedReader, unigram_model: Path
) -> None:
    new = Reader.load(unigram_model, device="cpu", dtype="float32")
    async with Engine(reader) as engine:
        served_since = engine.reader_since
        (old_ask,) = await waiting(engine, "being read")
        await reader.begins()
        (waits,) = await waiting(engine, "waits")
        await engine.swap(new)
        assert engine.reader is new
        assert engine.reader_since > served_since
        new_ask = asyncio.create_task(engine.ask("comes after", CONTEXT))
        reader.gate.set()
        assert (await old_ask).checkpoint == (await waits).checkpoint == reader.name
        assert await new_ask == new.read("comes after", CONTEXT)


async def test_a_reader_that_was_replaced_is_freed(reader: GatedReader, unigram_model: Path) -> None:
    new = Reader.load(unigram_model, device="cpu", dtype="float32")
    reader.gate.set()
    old = weakref.ref(Reader.load(unigram_model, device="cpu", dtype="float32"))
    assert old() is None  # nothing but the engine could hold one
    first = Reader.load(unigram_model, device="cpu", dtype="float32")
    old = weakref.ref(first)
    async with Engine(first) as engine:
        await engine.ask("他？", CONTEXT)
        await engine.swap(new)
        del first
        await engine.ask("他？", CONTEXT)
        gc.collect()
        assert old() is None


async def test_its_memory_is_given_back_when_the_last_that_asked_it_have_their_answers(
    reader: GatedReader, unigram_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("qa_engine.engine.give_back_freed_memory", lambda: loop.call_soon_threadsafe(given_back.set))
    async with Engine(reader) as engine:
        (old_ask,) = await waiting(engine, "being read")
        await reader.begins()
        await engine.swap(Reader.load(unigram_model, device="cpu", dtype="float32"))
        await engine.ask("他？", "")  # nothing to read: answered while the model is busy
        assert not given_back.is_set()
        reader.gate.set()
        await old_ask
        await asyncio.wait_for(given_back.wait(), PATIENCE_SECONDS)


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


async def test_a_soak_with_swaps_gives_everyone_the_reading_of_one_checkpoint_once(
    wordpiece_model: Path, unigram_model: Path
) -> None:
    """100 clients, 20 questions each, 5 swaps among them; every reading is what its checkpoint reads one by one."""
    readers = [Reader.load(model, device="cpu", dtype="float32") for model in (wordpiece_model, unigram_model)]
    contexts = [CONTEXT * (1 + number % 9) for number in range(10)]
    answered: list[tuple[str, str, Reading]] = []

    async def client(number: int, engine: Engine) -> None:
        for turn in range(20):
            question, context = f"他在哪里{(number * 7 + turn) % 25}？", contexts[(number + turn) % 10]
            answered.append((question, context, await engine.ask(question, context)))
            if number == 0 and turn % 4 == 3:
                await engine.swap(readers[(turn // 4 + 1) % 2])

    async with Engine(readers[0]) as engine:
        await asyncio.gather(*(client(number, engine) for number in range(100)))
    assert len(answered) == 2000
    by_name = {reader.name: reader for reader in readers}
    assert {reading.checkpoint for _, _, reading in answered} == by_name.keys()
    alone: dict[tuple[str, str, str], Reading] = {}
    for question, context, reading in answered:
        key = (reading.checkpoint, question, context)
        if key not in alone:
            alone[key] = by_name[reading.checkpoint].read(question, context)
        assert [(a.start, a.end) for a in reading.answers] == [(a.start, a.end) for a in alone[key].answers]
        assert reading.no_answer_score == pytest.approx(alone[key].no_answer_score, rel=1e-3)
