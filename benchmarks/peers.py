"""One reader over a file of questions, in a process of its own: what `benchmarks.serving` starts for each contestant.

`python peers.py READER MODEL QUESTIONS.json [NUMBER]` reads `[{"id", "question", "context"}, …]` and prints one JSON
object: seconds for all questions (loading and a first question not counted), seconds of each, the answers, and the
peak of the process's memory. The peers run in environments of their own, so this file imports nothing of this project
but for the reader `duwen`.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Questions = list[dict[str, str]]
Outcome = tuple[list[str], list[float]]
"""Answers, and seconds of each question."""


def duwen(model: str, concurrent: int) -> Callable[[Questions], Outcome]:
    """Our engine, with so many clients that each ask one question after the other."""
    from qa_engine import Reader
    from qa_engine.engine import Engine

    reader = Reader.load(model)

    async def ask_all(questions: Questions) -> Outcome:
        answers, seconds = [""] * len(questions), [0.0] * len(questions)
        numbers = iter(range(len(questions)))

        async def client(engine: Engine) -> None:
            for number in numbers:
                began = time.perf_counter()
                asked = questions[number]
                reading = await engine.ask(asked["question"], asked["context"])
                seconds[number] = time.perf_counter() - began
                answers[number] = reading.answers[0].text if reading.answers else ""

        async with Engine(reader, max_waiting=concurrent) as engine:
            await asyncio.gather(*(client(engine) for _ in range(concurrent)))
        return answers, seconds

    return lambda questions: asyncio.run(ask_all(questions))


def pipeline(model: str, batch_size: int) -> Callable[[Questions], Outcome]:
    """The question-answering pipeline that transformers had until 5.2."""
    import torch
    import transformers

    make_pipeline: Any = transformers.pipeline
    answer = make_pipeline("question-answering", model=model, tokenizer=model, dtype=torch.float32)

    def read(questions: Questions) -> Outcome:
        if batch_size == 1:
            return _one_by_one(lambda asked: str(answer(**asked)["answer"]), questions)
        began = time.perf_counter()
        texts = {name: [asked[name] for asked in questions] for name in ("question", "context")}
        found = answer(**texts, batch_size=batch_size)
        found = found if isinstance(found, list) else [found]
        return [str(one["answer"]) for one in found], [time.perf_counter() - began] * len(questions)

    return read


def haystack(model: str, _: int) -> Callable[[Questions], Outcome]:
    """Haystack's extractive reader."""
    import torch
    from haystack import Document
    from haystack_integrations.components.readers.transformers import TransformersExtractiveReader

    reader = TransformersExtractiveReader(
        model=model, top_k=1, no_answer=False, model_kwargs={"dtype": torch.float32}, token=None
    )
    reader.warm_up()

    def answer(asked: dict[str, str]) -> str:
        found = reader.run(query=asked["question"], documents=[Document(content=asked["context"])])["answers"]
        return str(found[0].data) if found else ""

    return lambda questions: _one_by_one(answer, questions)


def notebook(model: str, _: int) -> Callable[[Questions], Outcome]:
    """What a notebook does: cut off at 512 tokens, the best start, the best end, one question after the other."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForQuestionAnswering.from_pretrained(model, dtype=torch.float32).eval()

    @torch.no_grad()
    def answer(asked: dict[str, str]) -> str:
        encoded = tokenizer(
            asked["question"],
            asked["context"],
            truncation="only_second",
            max_length=512,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = encoded.pop("offset_mapping")[0].tolist()
        output = network(**encoded)
        start, end = int(output.start_logits.argmax()), int(output.end_logits.argmax())
        return asked["context"][offsets[start][0] : offsets[end][1]]

    return lambda questions: _one_by_one(answer, questions)


READERS = {"duwen": duwen, "pipeline": pipeline, "haystack": haystack, "notebook": notebook}


def _text_of(asked: dict[str, str]) -> dict[str, str]:
    return {"question": asked["question"], "context": asked["context"]}


def _one_by_one(answer: Callable[[dict[str, str]], str], questions: Questions) -> Outcome:
    answers, seconds = [], []
    for asked in questions:
        began = time.perf_counter()
        answers.append(answer(_text_of(asked)))
        seconds.append(time.perf_counter() - began)
    return answers, seconds


def main() -> None:
    name, model, path = sys.argv[1:4]
    questions: Questions = json.loads(Path(path).read_text(encoding="utf-8"))
    read = READERS[name](model, int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    read(questions[:1])
    began = time.perf_counter()
    answers, latencies = read(questions)
    seconds = time.perf_counter() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"seconds": seconds, "latencies": latencies, "answers": answers, "peak_mb": peak_mb}
    json.dump(result, sys.stdout, ensure_ascii=False)


if __name__ == "__main__":
    main()
