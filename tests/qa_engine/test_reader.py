"""An answer is a piece of the text as given, whatever the text; the best is the best over all windows."""

import logging
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import regex
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from qa_engine.checkpoints import Calibration, WindowSettings
from qa_engine.errors import CheckpointBroken, CheckpointError, CheckpointMissing, EmptyQuestion
from qa_engine.reader import (
    ASKS_AT_ONCE,
    BUNDLED,
    Answer,
    Ask,
    Reader,
    Reading,
    _product_seconds,
    choose_device,
    choose_dtype,
    cpu_is_faster_in_bfloat16,
    trimmed,
)
from qa_engine.windows import WindowSizes
from tests.qa_engine.material import CHARACTERS_TO_THE_EYE, any_text, publish_copy

FAMILY, THUMB, FLAG = "👨‍👩‍👧", "👍🏽", "🇨🇳"
SENTENCES = ["中国人民的时间。", "电话在家里，", "the 电话 is 3, ", "「他说：『去工作』」", "水力发电场生产电。"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reader(any_model: Path) -> Reader:
    return Reader.load(any_model, device="cpu", dtype="float32")


def long_context(characters: int) -> str:
    """Never the same twice in a row, so that no two spans have the same score."""
    text = "".join(SENTENCES[place * place % 7 % len(SENTENCES)] + str(place) for place in range(characters // 8 + 1))
    return text[:characters]


@settings(deadline=None, max_examples=100)
@given(st.one_of(any_text, any_text.map(lambda text: text * 12)), any_text, st.integers(1, 6))
@example("㎏½ﷺ" * 200, "㎏？", 5)
@example("\r\n\t　\0", "\0", 3)
@example(FAMILY * 300, FLAG, 3)
@example("\ud83d" * 600 + "人", "\udc00", 6)
def test_answers_are_pieces_of_the_text_best_first_and_apart(
    reader: Reader, context: str, question: str, top_k: int
) -> None:
    reading = reader.read(question + "？", context, top_k=top_k)
    assert len(reading.answers) <= top_k
    assert sum(answer.score for answer in reading.answers) <= 1 + 1e-6
    assert 0 <= reading.no_answer_score <= 1
    assert [answer.score for answer in reading.answers] == sorted(
        (answer.score for answer in reading.answers), reverse=True
    )
    for answer in reading.answers:
        assert 0 <= answer.start < answer.end <= len(context)
        assert context[answer.start : answer.end] == answer.text
        assert answer.text.strip()
    in_place = sorted(reading.answers, key=lambda answer: answer.start)
    assert all(left.end <= right.start for left, right in pairwise(in_place))


@pytest.mark.parametrize("length", [30, 700, 3000])
def test_the_best_answer_is_the_best_pair_over_all_windows(reader: Reader, length: int) -> None:
    ask = Ask("中国人在哪里工作？", long_context(length), top_k=1)
    encoded = reader.encode(ask)
    assert (len(encoded.windows) > 1) == (length > 600)
    best, null_score = (float("-inf"), 0, 0), float("inf")
    for window in encoded.windows:
        with torch.inference_mode():
            output = reader.model(
                input_ids=torch.from_numpy(window.input_ids)[None].long(),
                token_type_ids=torch.from_numpy(window.token_type_ids)[None].long(),
            )
        starts, ends = output.start_logits[0].tolist(), output.end_logits[0].tolist()
        null_score = min(null_score, starts[0] + ends[0])
        context_tokens = range(window.context_at, window.context_at + window.count)
        for start in context_tokens:
            for end in context_tokens[start - window.context_at :][: reader.max_answer_tokens]:
                pair = (starts[start] + ends[end], start, end)
                if pair[0] > best[0]:
                    shift = window.first - window.context_at
                    span = trimmed(
                        ask.context,
                        int(encoded.context.tokens.starts[start + shift]),
                        int(encoded.context.tokens.ends[end + shift]),
                    )
                    best = (pair[0], *span)
    reading = reader.read(ask.question, ask.context)
    assert (reading.answers[0].start, reading.answers[0].end) == best[1:]
    odds = torch.tensor(best[0] - null_score).exp()
    assert (1 - reading.no_answer_score) / reading.no_answer_score == pytest.approx(float(odds), rel=1e-3)


def test_many_together_read_as_each_alone(reader: Reader) -> None:
    asks = [
        Ask(f"{question}在哪里工作？", long_context(length), top_k)
        for question in ("中国人", "他", "the")
        for length, top_k in ((1, 1), (40, 3), (700, 5), (0, 1), (2000, 2), (90, 1), (300, 4))
    ] * 2
    assert len(asks) > ASKS_AT_ONCE
    for ask, together in zip(asks, reader.read_many(asks), strict=True):
        alone = reader.read(ask.question, ask.context, top_k=ask.top_k)
        assert [(a.start, a.end) for a in together.answers] == [(a.start, a.end) for a in alone.answers]
        assert [a.score for a in together.answers] == pytest.approx([a.score for a in alone.answers], rel=1e-3)
        assert together.no_answer_score == pytest.approx(alone.no_answer_score, rel=1e-3)


@pytest.mark.parametrize("context", ["", " ", "\n\t\u3000\r\n", " " * 2000])
def test_a_context_of_white_space_does_not_say(reader: Reader, context: str) -> None:
    reading = reader.read("他在哪里？", context)
    assert (reading.answers, reading.best, reading.no_answer_score) == ((), None, 1.0)


@pytest.mark.parametrize("question", ["", " ", "\n\u3000\t"])
def test_an_empty_question_is_refused(reader: Reader, question: str) -> None:
    with pytest.raises(EmptyQuestion):
        reader.read(question, "中国")


def test_a_long_question_costs_the_context_nothing(reader: Reader) -> None:
    encoded = reader.encode(Ask("他在哪里？" * 1000, long_context(2000)))
    last = encoded.windows[-1]
    assert last.first + last.count == len(encoded.context.tokens)
    assert encoded.context.tokens.ends[-1] == 2000


def test_best_is_none_when_the_text_does_not_say() -> None:
    answer = Answer("中", 0, 1, 0.4)
    assert Reading((answer,), 0.6, False, "x").best is None
    assert Reading((answer,), 0.4, True, "x").best == answer
    assert Reading((), 1.0, False, "x").best is None


def test_what_was_found_once_can_be_read_with_any_calibration(any_model: Path) -> None:
    model = Reader.load(any_model, device="cpu", dtype="float32")
    asks = [Ask("谁？", long_context(900), top_k=3), Ask("他？", "中国人民。"), Ask("他？", "")]
    found = model.find_many(asks)
    for calibration in (Calibration(), Calibration(temperature=3.0, no_answer_threshold=0.01)):
        model.calibration = calibration
        assert [one.reading(calibration) for one in found] == model.read_many(asks)
    hot, cold = (found[0].reading(Calibration(temperature=one)).answers[0] for one in (10.0, 0.5))
    assert (hot.start, hot.end) == (cold.start, cold.end), "a temperature changes probabilities, not their order"
    assert hot.score < cold.score
    plain, raised = (found[0].reading(Calibration(bias=one)).answers[0].score for one in (0.0, 1.5))
    assert raised / (1 - raised) == pytest.approx(plain / (1 - plain) * math.exp(1.5))


@pytest.mark.parametrize(("threshold", "is_answerable"), [(0.0, False), (1.0, True)])
def test_the_checkpoint_s_threshold_decides_what_is_an_answer(
    wordpiece_model: Path, tmp_path: Path, threshold: float, is_answerable: bool
) -> None:
    reader = Reader.load(publish_copy(wordpiece_model, tmp_path, no_answer_threshold=threshold), device="cpu")
    reading = reader.read("中国人在哪里？", "中国人在家里。")
    assert reading.answers
    assert (reading.best is not None) == reading.is_answerable == is_answerable


TRIMMED = [  # 【 and 】 mark the span before
    ("a 【 \n　北京\r\n\t】 b", "北京"),
    ("他说「【去北京」】。", "去北京"),
    ("他说【「去北京】」。", "去北京"),
    ("【「去北京」】", "「去北京」"),
    ("【去「北京」】", "去「北京」"),
    ("【「「去」北京」】", "「「去」北京」"),
    ("「【「去」北京」】", "「去」北京"),
    ("【「去」和「北】京」", "「去」和「北"),
    ("「去【」和「】北京」", "和"),
    ("【『「去】」』", "去"),
    ("【（《去》】）", "《去》"),
    ("（【 ） 去（】", "去"),
    ("他【”去“】", "去"),
    ("【（】", ""),
    ("【 「』 】", ""),
    ("【】中", ""),
    ("【，去北京。】", "去北京"),
    ("在【9:00，】", "9:00"),
    ("【「去北京」；】", "「去北京」"),
    ("他喊【：“加油！”】", "“加油！”"),
    ("【！加油！】", "加油！"),
    ("【。，】", ""),
    ("【1,299】元", "1,299"),
    ("caf【e】\u0301 x", "e\u0301"),
    ("cafe【\u0301 x】", "e\u0301 x"),
    ("看👨\u200d【👩】\u200d👧家", FAMILY),
    ("看【👨\u200d】👩\u200d👧家", FAMILY),
    ("好👍【🏽】。", THUMB),
    ("好【👍】🏽。", THUMB),
    ("🇨🇳🇨【🇳】🇩🇪", FLAG),
    ("🇨🇳🇨🇳【🇩】🇪", "🇩🇪"),
    ("🏴\U000e0067【\U000e0062】\U000e007f", "🏴\U000e0067\U000e0062\U000e007f"),
    ("【1】\ufe0f\u20e3", "1\ufe0f\u20e3"),
    ("【葛】\U000e0100城", "葛\U000e0100"),
    ("去【北京\r】\n", "北京"),
    ("去\r【\n北京】", "北京"),
    ("【 \u0301中】", " \u0301中"),
    ("坐【ﾊ】ﾞｽ", "ﾊﾞ"),
    ("吃ﾊ【ﾟﾝ】", "ﾊﾟﾝ"),
]


@pytest.mark.parametrize(("marked", "expected"), TRIMMED)
def test_a_span_s_edges_are_trimmed(marked: str, expected: str) -> None:
    start = marked.index("【")
    end = marked.rindex("】") - 1
    context = marked[:start] + marked[start + 1 : end + 1] + marked[end + 2 :]
    start, end = trimmed(context, start, end)
    assert context[start:end] == expected


def edges(text: str) -> set[int]:
    """Where characters as people see them begin and end (Unicode annex 29)."""
    return {0, *accumulate(len(cluster) for cluster in regex.findall(r"\X", text))}


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(CHARACTERS_TO_THE_EYE), min_size=1, max_size=12).map("".join), st.data())
def test_a_span_never_ends_within_a_character(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    first, last = trimmed(text, start, end)
    if first < last:
        assert {first, last} <= edges(text)
        assert trimmed(text, first, last) == (first, last)
        assert text[first:last] == text[first:last].strip() or "\u0301" in text


def test_a_folder_without_manifest_is_read_with_the_defaults_and_says_so(
    any_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader.load(str(any_model), device="cpu")
    assert (reader.manifest, reader.name) == (None, any_model.name)
    assert reader.window_maker.sizes == WindowSizes(512, 128)
    assert reader.max_answer_tokens == 64
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert any("has no manifest" in message for message in warnings)


def test_a_manifest_s_windows_are_used(any_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    windows = WindowSettings(max_tokens=200, stride=40, max_answer_tokens=3)
    reader = Reader.load(publish_copy(any_model, tmp_path, windows=windows), device="cpu", dtype="float32")
    assert (reader.name, reader.max_answer_tokens) == ("2026-01-01T00-00-00", 3)
    assert reader.window_maker.sizes == WindowSizes(200, 40)
    assert reader.manifest is not None
    assert all(len(answer.text) <= 9 for answer in reader.read("他？", long_context(900), top_k=5).answers)
    assert not [record for record in caplog.records if "manifest" in record.message]


def test_the_bundled_checkpoint_is_whole_and_reads() -> None:
    reader = Reader.load(device="cpu", dtype="float32")
    assert reader.name == "bundled"
    assert reader.manifest is not None
    assert set(reader.manifest.files) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert BUNDLED.is_dir()
    context = "她的姑姑住在杭州，是一位医生。"
    for answer in reader.read("姑姑住在哪里？", context, top_k=3).answers:
        assert context[answer.start : answer.end] == answer.text


@pytest.mark.parametrize("source", ["no/such", "./no-such", "/no/such/folder", Path("no/such/folder/here")])
def test_a_checkpoint_that_is_nowhere_is_missing_by_name(source: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointMissing, match=r"no.such"):
        Reader.load(source)


@pytest.fixture
def on_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Puts a folder as `someone/reader` into the local cache of the Hub, from which it is read without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(folder: Path) -> Path:
        model, commit = tmp_path / "hub" / "models--someone--reader", "c" * 40
        shutil.copytree(folder, model / "snapshots" / commit)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(commit)
        return model / "snapshots" / commit

    return put


def test_a_checkpoint_of_ours_on_the_hub_keeps_its_manifest(
    wordpiece_model: Path, tmp_path: Path, on_hub: Callable[[Path], Path]
) -> None:
    windows = WindowSettings(max_tokens=200, stride=40)
    cached = on_hub(publish_copy(wordpiece_model, tmp_path, windows=windows, no_answer_threshold=0.25))
    reader = Reader.load("someone/reader", device="cpu")
    assert reader.name == "someone/reader"
    assert reader.manifest is not None
    assert reader.window_maker.sizes == WindowSizes(200, 40)
    assert reader.calibration.no_answer_threshold == 0.25
    (cached / "config.json").write_text("{}")
    with pytest.raises(CheckpointBroken, match=r"config\.json has 2 bytes"):
        Reader.load("someone/reader", device="cpu")


def test_any_other_model_of_the_hub_is_read_uncalibrated(wordpiece_model: Path, on_hub: Callable[[Path], Path]) -> None:
    on_hub(wordpiece_model)
    reader = Reader.load("someone/reader", device="cpu")
    assert (reader.name, reader.manifest) == ("someone/reader", None)


def test_only_safetensors_are_loaded(wordpiece_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(wordpiece_model, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointBroken, match="pickle"):
        Reader.load(folder)


def test_auto_takes_the_best_device_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "CPU?"])
def test_a_device_that_is_not_here_is_refused_by_name(device: str) -> None:
    with pytest.raises(CheckpointError, match=f"'{regex.escape(device)}' is no device here"):
        choose_device(device)


@pytest.fixture
def _nothing_measured_yet() -> Iterator[None]:
    cpu_is_faster_in_bfloat16.cache_clear()
    yield
    cpu_is_faster_in_bfloat16.cache_clear()


@pytest.mark.usefixtures("_nothing_measured_yet")
@pytest.mark.parametrize(
    ("has_amx", "seconds", "expected"),
    [
        (True, (0.004, 0.001), torch.bfloat16),
        (True, (0.002, 0.004), torch.float32),  # it has the instructions, and is slow with them
        (True, (0.0021, 0.002), torch.float32),
        (False, (0.004, 0.001), torch.float32),  # slow in all, and not to be measured
    ],
)
def test_auto_takes_bfloat16_on_a_cpu_that_is_faster_in_it(
    monkeypatch: pytest.MonkeyPatch, has_amx: bool, seconds: tuple[float, float], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr("qa_engine.reader._product_seconds", lambda: seconds)
    assert choose_dtype("auto", CPU) == expected


@pytest.mark.usefixtures("_nothing_measured_yet")
def test_what_a_cpu_is_faster_in_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def product_seconds() -> tuple[float, float]:
        measured.append(_product_seconds())
        return 2.0, 1.0

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr("qa_engine.reader._product_seconds", product_seconds)
    assert [choose_dtype("auto", CPU) for _ in range(3)] == [torch.bfloat16] * 3
    assert len(measured) == 1
    assert all(0 < seconds < 10 for seconds in measured[0])


@pytest.mark.parametrize(("computes_bfloat16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_takes_bfloat16_on_gpus_that_compute_in_it_and_float16_on_older_ones(
    monkeypatch: pytest.MonkeyPatch, computes_bfloat16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: computes_bfloat16)
    assert choose_dtype("auto", torch.device("cuda")) == expected


def test_a_named_dtype_is_taken_and_an_unknown_one_refused(wordpiece_model: Path) -> None:
    assert Reader.load(wordpiece_model, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert Reader.load(wordpiece_model, device="cpu", dtype="float32").dtype == torch.float32
    assert choose_dtype("float16", CPU) == torch.float16
    with pytest.raises(CheckpointError, match="'int8' is no dtype"):
        choose_dtype("int8", CPU)


def test_the_thread_in_which_a_reader_warms_up_has_ended_when_it_is_loaded(
    wordpiece_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its OpenMP workers would slow down the thread that reads, see `Reader.load`."""
    computing: list[threading.Thread] = []
    warm_up = Reader.warm_up

    def noted(self: Reader) -> None:
        computing.append(threading.current_thread())
        warm_up(self)

    monkeypatch.setattr(Reader, "warm_up", noted)
    Reader.load(wordpiece_model, device="cpu")
    (thread,) = computing
    assert thread is not threading.current_thread()
    assert not thread.is_alive()
