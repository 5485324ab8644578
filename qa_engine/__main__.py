"""`python -m qa_engine`: `ask` a question about a text file, `predict` the answers to a file of questions.

Exit status: 0 done, 1 a reported failure, 2 wrong usage. Results go to stdout or a file, messages to stderr.
"""

import argparse
import io
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_engine.errors import DataError, DuwenError

if TYPE_CHECKING:
    from qa_engine.reader import Ask


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal in GBK has no emoji
    options = _parser().parse_args(arguments)
    try:
        if options.command == "ask":
            _ask(options)
        else:
            _predict(options)
    except DuwenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qa_engine", description="Answers in a text's own words.")
    commands = parser.add_subparsers(dest="command", required=True)
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--checkpoint", help="folder or Hub id (default: the bundled checkpoint)")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    model.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])

    ask = commands.add_parser("ask", parents=[model], help="answer one question about a text file")
    ask.add_argument("question")
    ask.add_argument("--context-file", type=Path, required=True, help="the text, UTF-8; - reads it from stdin")
    ask.add_argument("--top-k", type=_positive, default=1, help="how many answers (default: 1)")
    ask.add_argument("--json", action="store_true", help="print JSON with places and probabilities")

    predict = commands.add_parser(
        "predict",
        parents=[model],
        help="answer all questions of a SQuAD-style file: {question id: answer text}",
    )
    predict.add_argument("data", type=Path, help="SQuAD, CMRC 2018 or DRCD file")
    predict.add_argument("-o", "--output", type=Path, required=True, help="the predictions, as JSON")
    predict.add_argument("--allow-no-answer", action="store_true", help='"" where the text does not say')
    predict.add_argument(
        "--null-scores", type=Path, help="also write {question id: probability that the text does not say}"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("should be 1 or more")
    return number


def _ask(options: argparse.Namespace) -> None:
    from qa_engine.reader import Reader

    if options.context_file == Path("-"):
        if sys.stdin is None:
            raise DataError("-: stdin is closed: pipe the text into it, or give a file")
        source = sys.stdin.buffer
    else:
        source = options.context_file.open("rb")
    with source as file:
        try:
            context = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{options.context_file}: is not UTF-8 at byte {error.start}: save it as UTF-8") from error
    reader = Reader.load(options.checkpoint, device=options.device, dtype=options.dtype)
    reading = reader.read(options.question, context, top_k=options.top_k)
    if options.json:
        is_utf8 = (getattr(sys.stdout, "encoding", None) or "").lower() == "utf-8"
        print(json.dumps(asdict(reading), ensure_ascii=not is_utf8, indent=2))
    elif reading.best is None:
        print("段落中无法找到答案 (the text does not say)", file=sys.stderr)
    else:
        for answer in reading.answers:
            print(
                f"{answer.text}\t{answer.score:.0%}\t{answer.start}–{answer.end}" if options.top_k > 1 else answer.text
            )


def _predict(options: argparse.Namespace) -> None:
    from qa_engine.reader import Reader

    for output in (options.output, options.null_scores):
        if output and not output.parent.is_dir():
            raise DataError(f"{output}: there is no folder {output.parent} to write it into")
    questions = _questions(options.data)
    readable = {key: ask for key, ask in questions.items() if ask.question.strip()}
    reader = Reader.load(options.checkpoint, device=options.device, dtype=options.dtype)
    readings = dict(zip(readable, reader.read_many(list(readable.values()), progress=True), strict=True))
    predictions = dict.fromkeys(questions, "")
    for key, reading in readings.items():
        answer = reading.best if options.allow_no_answer else next(iter(reading.answers), None)
        predictions[key] = answer.text if answer else ""
    _write(options.output, predictions)
    if options.null_scores:
        silent = {key: reading.no_answer_score for key, reading in readings.items()}
        _write(options.null_scores, dict.fromkeys(questions, 1.0) | silent)


def _questions(path: Path) -> dict[str, "Ask"]:
    """What to ask, by question id; labels are not looked at, they need not be there."""
    from qa_engine.reader import Ask

    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        asks = {
            str(qa["id"]): Ask(qa["question"], paragraph["context"])
            for article in document["data"]
            for paragraph in article["paragraphs"]
            for qa in paragraph["qas"]
        }
        if not all(isinstance(ask.context, str) and isinstance(ask.question, str) for ask in asks.values()):
            raise TypeError("a context or a question is not a text")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 at byte {error.start}: save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON: line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise DataError(f"{path}: is not in SQuAD's layout: it is nested too deeply") from error
    except ValueError as error:  # json's only other one: Python takes 4,300 digits
        raise DataError(f"{path}: holds a number of too many digits: write it as a text") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is not in SQuAD's layout (data → paragraphs → context, qas): {error!r}") from error
    return asks


def _write(path: Path, values: dict[str, Any]) -> None:
    """All or nothing: an interrupted run leaves no half file."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    text = json.dumps(values, ensure_ascii=False, indent=1) + "\n"
    # Half a surrogate pair is no UTF-8; written with a backslash it is the JSON escape that it came from.
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
