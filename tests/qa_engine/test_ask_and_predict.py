"""`python -m qa_engine`: results on stdout or in files, messages on stderr, 0 / 1 / 2 as exit status."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qa_engine.__main__ import main
from qa_engine.reader import Reader
from tests.qa_engine.material import publish_copy

REPOSITORY = Path(__file__).parents[2]
CONTEXT = "中国人民的时间。他在家里工作，电话是3。"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def sure(wordpiece_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that always finds an answer."""
    return publish_copy(wordpiece_model, tmp_path_factory.mktemp("sure"), no_answer_threshold=1)


@pytest.fixture(scope="module")
def unsure(wordpiece_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that never does."""
    return publish_copy(wordpiece_model, tmp_path_factory.mktemp("unsure"), no_answer_threshold=0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, stdout and stderr of a command line."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        try:
            status = main([*map(str, arguments)])
        except SystemExit as wrong_usage:
            status = int(wrong_usage.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "paragraph.txt"
    path.write_text(CONTEXT, encoding="utf-8")
    return path


def squad(*paragraphs: dict[str, Any]) -> str:
    return json.dumps({"version": "x", "data": [{"title": "x", "paragraphs": list(paragraphs)}]}, ensure_ascii=False)


def paragraph(context: str, **questions: str) -> dict[str, Any]:
    return {"context": context, "qas": [{"id": key, "question": question} for key, question in questions.items()]}


def test_ask_prints_the_answer_and_nothing_else(run: Run, sure: Path, text_file: Path) -> None:
    status, out, err = run("ask", "--checkpoint", sure, "--device", "cpu", "--context-file", text_file, "他在哪里？")
    best = Reader.load(sure, device="cpu").read("他在哪里？", CONTEXT).best
    assert best is not None
    assert (status, out, err) == (0, best.text + "\n", "")


def test_ask_prints_several_answers_with_probability_and_place(run: Run, sure: Path, text_file: Path) -> None:
    _, out, _ = run("ask", "--checkpoint", sure, "--context-file", text_file, "--top-k", "3", "他在哪里？")
    lines = [line.split("\t") for line in out.splitlines()]
    assert len(lines) == 3
    for text, probability, place in lines:
        start, end = map(int, place.split("–"))
        assert CONTEXT[start:end] == text
        assert probability.endswith("%")


def test_ask_prints_json(run: Run, sure: Path, text_file: Path) -> None:
    status, out, _ = run(
        "ask", "--checkpoint", sure, "--context-file", text_file, "--top-k", "2", "--json", "他在哪里？"
    )
    reading = json.loads(out)
    assert status == 0
    assert reading["checkpoint"] == sure.name
    assert 0 <= reading["no_answer_score"] <= 1
    assert len(reading["answers"]) == 2
    for answer in reading["answers"]:
        assert set(answer) == {"text", "start", "end", "score"}
        assert CONTEXT[answer["start"] : answer["end"]] == answer["text"]


def test_ask_says_on_stderr_that_the_text_does_not_say(run: Run, unsure: Path, text_file: Path) -> None:
    status, out, err = run("ask", "--checkpoint", unsure, "--context-file", text_file, "他在哪里？")
    assert (status, out) == (0, "")
    assert "段落中无法找到答案" in err


def test_ask_reads_stdin_and_drops_a_byte_order_mark(run: Run, sure: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + CONTEXT.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    status, out, _ = run("ask", "--checkpoint", sure, "--context-file", "-", "--json", "他在哪里？")
    (answer,) = json.loads(out)["answers"]
    assert status == 0
    assert CONTEXT[answer["start"] : answer["end"]] == answer["text"]


def test_ask_reports_a_closed_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    status, out, err = run("ask", "--context-file", "-", "他在哪里？")
    assert (status, out) == (1, "")
    assert err.startswith("error: -: stdin is closed")
    assert err.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_ask_prints_what_the_terminal_s_encoding_lacks_with_a_backslash(
    run: Run, sure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    path = tmp_path / "paragraph.txt"
    path.write_text("👍", encoding="utf-8")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="gbk"))
    assert run("ask", "--checkpoint", sure, "--context-file", path, *options, "他在哪里？")[0] == 0
    sys.stdout.flush()
    text = printed.getvalue().decode("gbk")
    if options:
        assert json.loads(text)["answers"][0]["text"] == "👍"
    else:
        assert text.split() == [r"\U0001f44d"]


@pytest.mark.parametrize(
    ("content", "question", "message"),
    [
        (None, "他在哪里？", "No such file"),
        ("中国".encode("gb18030"), "他在哪里？", "is not UTF-8 at byte 0"),
        (CONTEXT.encode(), " ", "the question is empty"),
    ],
)
def test_ask_reports_what_it_cannot_read_in_one_line(
    run: Run, sure: Path, tmp_path: Path, content: bytes | None, question: str, message: str
) -> None:
    path = tmp_path / "paragraph.txt"
    if content is not None:
        path.write_bytes(content)
    status, out, err = run("ask", "--checkpoint", sure, "--context-file", path, question)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("option", "value"), [("--checkpoint", "/no/such/checkpoint"), ("--device", "gpu")])
def test_what_cannot_be_loaded_is_reported_in_one_line(run: Run, text_file: Path, option: str, value: str) -> None:
    status, out, err = run("ask", option, value, "--context-file", text_file, "他在哪里？")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert value in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sing"],
        ["ask", "他在哪里？"],
        ["ask", "--context-file", "x"],
        ["ask", "--context-file", "x", "--top-k", "0", "?"],
        ["ask", "--context-file", "x", "--top-k", "many", "?"],
        ["ask", "--context-file", "x", "--dtype", "int8", "?"],
        ["predict", "data.json"],
    ],
)
def test_wrong_usage_is_2_and_shows_the_usage(run: Run, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("usage: python -m qa_engine")


def test_predict_writes_the_official_format_in_the_file_s_order(run: Run, sure: Path, tmp_path: Path) -> None:
    data, predictions, nulls = tmp_path / "data.json", tmp_path / "predictions.json", tmp_path / "nulls.json"
    contexts = [CONTEXT, CONTEXT * 9, "在" * 40, "电话"]
    data.write_text(
        squad(*(paragraph(text, **{f"Q{n}_b": "他在哪里？", f"Q{n}_a": "电话？"}) for n, text in enumerate(contexts))),
        encoding="utf-8",
    )
    status, out, _ = run("predict", "--checkpoint", sure, data, "-o", predictions, "--null-scores", nulls)
    assert (status, out) == (0, "")
    answers = json.loads(predictions.read_text(encoding="utf-8"))
    assert list(answers) == [f"Q{n}_{end}" for n in range(4) for end in "ba"]
    reader = Reader.load(sure)
    for key, answer in answers.items():
        context = contexts[int(key[1])]
        assert answer in context
        assert answer == reader.read("他在哪里？" if key.endswith("b") else "电话？", context).answers[0].text
    scores = json.loads(nulls.read_text(encoding="utf-8"))
    assert list(scores) == list(answers)
    assert all(0 <= score <= 1 for score in scores.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "nulls.json", "predictions.json"]


def test_predict_abstains_only_where_it_may(run: Run, unsure: Path, tmp_path: Path) -> None:
    data, predictions = tmp_path / "data.json", tmp_path / "predictions.json"
    data.write_text(squad(paragraph(CONTEXT, q="他在哪里？"), paragraph(" ", blank="他在哪里？")), encoding="utf-8")
    assert run("predict", "--checkpoint", unsure, data, "-o", predictions)[0] == 0
    answers = json.loads(predictions.read_text(encoding="utf-8"))
    assert answers["q"]
    assert answers["blank"] == ""
    assert run("predict", "--checkpoint", unsure, data, "-o", predictions, "--allow-no-answer")[0] == 0
    assert json.loads(predictions.read_text(encoding="utf-8")) == {"q": "", "blank": ""}


def test_predict_gives_a_null_score_for_an_empty_question_too(run: Run, sure: Path, tmp_path: Path) -> None:
    data, predictions, nulls = tmp_path / "data.json", tmp_path / "predictions.json", tmp_path / "nulls.json"
    data.write_text(squad(paragraph(CONTEXT, empty=" ", q="他在哪里？")), encoding="utf-8")
    assert run("predict", "--checkpoint", sure, data, "-o", predictions, "--null-scores", nulls)[0] == 0
    scores = json.loads(nulls.read_text(encoding="utf-8"))
    assert list(scores) == ["empty", "q"]
    assert scores["empty"] == 1 > scores["q"]


def test_predict_writes_json_even_for_half_a_surrogate_pair(run: Run, unigram_model: Path, tmp_path: Path) -> None:
    data, predictions = tmp_path / "data.json", tmp_path / "predictions.json"
    context = "\ud83d"
    data.write_text(json.dumps({"data": [{"paragraphs": [paragraph(context, q="他在哪里？")]}]}), encoding="utf-8")
    assert run("predict", "--checkpoint", unigram_model, data, "-o", predictions)[0] == 0
    assert json.loads(predictions.read_text(encoding="utf-8")) == {"q": context}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{oops", "is not JSON: line 1"),
        ("[\n1,\n]".encode("utf-16"), "is not UTF-8"),
        (b"[]", "is not in SQuAD's layout"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"data": ' + b"1" * 5000 + b"}", "a number of too many digits"),
        (b"{}", "'data'"),
        (b'{"data": null}', "is not in SQuAD's layout"),
        (b'{"data": [{"paragraphs": [{"qas": []}, 5]}]}', "is not in SQuAD's layout"),
        (b'{"data": [{"paragraphs": [{"context": "x", "qas": [{"question": "?"}]}]}]}', "'id'"),
        (b'{"data": [{"paragraphs": [{"context": "x", "qas": [{"id": 1, "question": 5}]}]}]}', "is not in SQuAD's"),
        (b'{"data": [{"paragraphs": [{"context": null, "qas": [{"id": 1, "question": "?"}]}]}]}', "is not a text"),
    ],
)
def test_predict_reports_malformed_data_in_one_line(
    run: Run, sure: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    data = tmp_path / "data.json"
    data.write_bytes(content)
    status, out, err = run("predict", "--checkpoint", sure, data, "-o", tmp_path / "predictions.json")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {data}: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "predictions.json").exists()


def test_predict_reports_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    status, _, err = run("predict", tmp_path / "nowhere.json", "-o", tmp_path / "predictions.json")
    assert status == 1
    assert "nowhere.json" in err


def test_help_does_not_wait_for_torch() -> None:
    script = (
        "import runpy, sys\n"
        "sys.argv = ['qa_engine', '--help']\n"
        "try: runpy.run_module('qa_engine', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy imports'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "predict" in done.stdout
