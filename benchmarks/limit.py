"""`python -m benchmarks.limit`: how much of the machine's matrix-multiply peak the engine reaches, end to end.

The peak is that of one large multiplication, measured in the same process, in the model's own precision, with the same
threads. The work is counted, not estimated: the multiply-adds of every window that was read, without its padding, by
the shapes of the model's matrices, and those of attention. Everything between question and answer is in the time:
tokenizing, queueing, decoding, asyncio.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch.nn import Linear

from benchmarks.serving import machine
from qa_engine import Ask, Reader
from qa_engine.engine import Engine
from trainer.finetune import SAMPLE_DEV
from trainer.squad import Example, load

PEAK_SIZE = 4096
PEAK_ROUNDS = 9


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit", description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=SAMPLE_DEV, help="SQuAD, CMRC 2018 or DRCD file (default: the sample)")
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--at-once", type=int, default=32, help="clients that each ask one question after the other")
    parser.add_argument("--model", help="checkpoint folder (default: the bundled one)")
    parser.add_argument("--output", type=Path, default=Path("var/benchmarks"))
    options = parser.parse_args(arguments)
    reader = Reader.load(options.model)
    examples = load(options.data).examples[: options.questions]
    lengths = [len(window) for one in examples for window in reader.encode(Ask(one.question, one.context)).windows]
    reader.contexts.clear()
    work = 2 * sum(multiply_adds(reader, length) for length in lengths)
    seconds = asyncio.run(read_all(reader, examples, options.at_once))
    forward = forward_seconds(reader, examples)
    peak = peak_flops(reader)
    facts = {
        "machine": machine(),
        "dtype": str(reader.dtype).removeprefix("torch."),
        "questions": len(examples),
        "windows": len(lengths),
        "tokens": sum(lengths),
        "gflop_per_question": work / len(examples) / 1e9,
        "peak_gflops": peak / 1e9,
        "forward_gflops": work / forward / 1e9,
        "end_to_end_gflops": work / seconds / 1e9,
        "share_of_peak_forward": work / forward / peak,
        "share_of_peak": work / seconds / peak,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "limit.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    text = table(facts)
    (options.output / "limit.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def multiply_adds(reader: Reader, tokens: int) -> int:
    """Of one window: every linear layer on every token, and attention's two products of `tokens` × `tokens`."""
    config = reader.model.config
    linear = sum(layer.weight.numel() for layer in reader.model.modules() if isinstance(layer, Linear))
    return tokens * linear + int(config.num_hidden_layers) * 2 * tokens * tokens * int(config.hidden_size)


async def read_all(reader: Reader, examples: Iterable[Example], at_once: int) -> float:
    """Seconds until every question has its answer."""
    waiting = iter(list(examples))

    async def client(engine: Engine) -> None:
        for one in waiting:
            await engine.ask(one.question, one.context)

    async with Engine(reader, max_waiting=at_once) as engine:
        began = time.perf_counter()
        await asyncio.gather(*(client(engine) for _ in range(at_once)))
        return time.perf_counter() - began


def forward_seconds(reader: Reader, examples: Iterable[Example]) -> float:
    """Seconds of the model alone, on the same windows in large batches."""
    windows = [window for one in examples for window in reader.encode(Ask(one.question, one.context)).windows]
    began = time.perf_counter()
    reader.forward(windows)
    return time.perf_counter() - began


def peak_flops(reader: Reader) -> float:
    """Floating-point operations a second of one large multiplication; the best of several."""
    left, right = (torch.randn(PEAK_SIZE, PEAK_SIZE, device=reader.device).to(reader.dtype) for _ in range(2))
    best = float("inf")
    for _ in range(PEAK_ROUNDS):
        began = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * PEAK_SIZE**3 / best


def table(facts: dict[str, object]) -> str:
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {value:,.3f} |"
        if isinstance(value, float)
        else f"| {name.replace('_', ' ')} | {value} |"
        for name, value in facts.items()
    )
    return f"| what | figure |\n| --- | ---: |\n{rows}"


if __name__ == "__main__":
    main()
