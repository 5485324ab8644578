"""`python -m benchmarks.long_documents`: what a question costs, and is worth, on documents that grow.

A document is made of the contexts of a data file, joined; the questions are those of some of them. Read three ways: the
right paragraph alone, the best passages of the whole document (as the bot does), and, where the document is short
enough for one's patience, every window of it. The index of a document is built before the clock starts, as it is built
once for all questions.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.serving import machine
from qa_engine import Reader
from qa_engine.contexts import KnownContext
from trainer.evaluate import evaluate
from trainer.finetune import SAMPLE_DEV
from trainer.squad import Example, load


@dataclass(frozen=True)
class Row:
    """`seconds`: a question, the index being there; `index_seconds`: a document."""

    contexts: int
    characters: int
    way: str
    em: float
    f1: float
    seconds: float
    index_seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_documents", description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=SAMPLE_DEV, help="SQuAD, CMRC 2018 or DRCD file (default: the sample)")
    parser.add_argument("--contexts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--questions", type=int, default=100, help="for each length of document")
    parser.add_argument("--read-whole-up-to", type=int, default=10, help="contexts; longer ones are not read whole")
    parser.add_argument("--model", help="checkpoint folder (default: the bundled one)")
    parser.add_argument("--output", type=Path, default=Path("var/benchmarks"))
    options = parser.parse_args(arguments)
    examples = [one for one in load(options.data).examples if not one.is_impossible]
    reader = Reader.load(options.model)
    rows = [
        row
        for count in options.contexts
        for row in measure(reader, examples, count, options.questions, options.read_whole_up_to)
    ]
    text = f"{options.questions} questions of {Path(options.data).name}; {machine()}.\n\n{table(rows)}"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "long_documents.md").write_text(text + "\n", encoding="utf-8")
    facts = {"machine": machine(), "rows": [vars(row) for row in rows]}
    (options.output / "long_documents.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print(text)


def measure(reader: Reader, examples: Sequence[Example], count: int, questions: int, whole_up_to: int) -> list[Row]:
    """The rows for documents of `count` contexts (or as many as there are)."""
    contexts = list(dict.fromkeys(example.context for example in examples))
    count = min(count, len(contexts))
    draw = random.Random(count)
    chosen = draw.sample(contexts, count)
    asked = [example for example in examples if example.context in set(chosen)]
    asked = draw.sample(asked, min(questions, len(asked)))
    document = "\n".join(chosen)
    in_document = [replace(example, context=document) for example in asked]
    ways = [("the right paragraph", asked), ("the best passages", in_document)]
    rows = []
    for way, some in ways:
        reader.contexts.clear()
        began = time.perf_counter()
        for example in some:
            reader.contexts.known(example.context)
        index_seconds = time.perf_counter() - began
        rows.append(_read(reader, some, count, len(document), way, index_seconds))
    if count <= whole_up_to:
        known = reader.contexts.known(document)
        reader.contexts.keep(KnownContext(known.text, known.tokens, known.script, None))
        rows.append(_read(reader, in_document, count, len(document), "everything", 0.0))
        reader.contexts.clear()
    return rows


def _read(
    reader: Reader, examples: Sequence[Example], count: int, characters: int, way: str, index_seconds: float
) -> Row:
    began = time.perf_counter()
    readings = [reader.read(one.question, one.context) for one in tqdm(examples, desc=f"{count}: {way}", leave=False)]
    seconds = (time.perf_counter() - began) / len(examples)
    always = [replace(reading, is_answerable=bool(reading.answers)) for reading in readings]
    result = evaluate(examples, always)
    return Row(count, characters, way, result.em, result.f1, seconds, index_seconds)


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| contexts | characters | read | EM | F1 | ms a question | index, once |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.contexts:,} | {row.characters:,} | {row.way} | {row.em:.1f} | {row.f1:.1f} | "
        f"{1000 * row.seconds:.0f} | {row.index_seconds:.2f} s |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
