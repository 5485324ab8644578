"""`python -m benchmarks.soak`: many asks, many clients, the reader swapped now and then. Is each answered, and right?

Two readers of the same weights take turns, one of which favours short answers (`length_weight`), so that they differ.
Every ask must be answered once, by one of them, as that one answers alone; memory must not grow from swap to swap. Asks
that a batch decides otherwise than the reader alone are counted: in bfloat16 the order of a sum can turn the scale
between two answers that are as good as equal.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import psutil
from tqdm import tqdm

from benchmarks.serving import machine
from qa_engine import Reader, Reading
from qa_engine.engine import Engine
from qa_engine.reader import BUNDLED
from trainer.finetune import SAMPLE_DEV
from trainer.squad import Example, load


@dataclass(frozen=True)
class Answered:
    """An ask and its reading."""

    example: Example
    reading: Reading

    @property
    def key(self) -> tuple[str, str, str]:
        return self.reading.checkpoint, self.example.question, self.example.context


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write and print; 1 where an ask was lost, answered twice or by nobody known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=SAMPLE_DEV, help="SQuAD, CMRC 2018 or DRCD file (default: the sample)")
    parser.add_argument("--asks", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--swaps", type=int, default=5)
    parser.add_argument("--compared", type=int, default=400, help="distinct asks that are read again one by one")
    parser.add_argument("--model", default=str(BUNDLED), help="checkpoint folder (default: the bundled one)")
    parser.add_argument("--output", type=Path, default=Path("var/benchmarks"))
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    examples = load(options.data).examples
    answered, memory_mb = asyncio.run(soak(options.model, examples, options.asks, options.clients, options.swaps))
    seconds = time.perf_counter() - began
    readers = {reader.name: reader for reader in (_reader(options.model, place) for place in range(2))}
    once = {one.key: one for one in answered}
    compared = list(islice(once.values(), 0, None, max(1, len(once) // options.compared)))
    differing = sum(_differs(one, readers[one.reading.checkpoint]) for one in tqdm(compared, desc="one by one"))
    by_reader = {name: sum(one.reading.checkpoint == name for one in answered) for name in readers}
    facts = {
        "machine": machine(),
        "asks": options.asks,
        "answered": len(answered),
        "clients": options.clients,
        "swaps": options.swaps,
        "questions_per_second": len(answered) / seconds,
        "by_reader": by_reader,
        "compared": len(compared),
        "differing": differing,
        "memory_mb_after_each_swap": memory_mb,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "soak.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    text = "\n".join(["| what | figure |", "| --- | --- |", *(f"| {name} | {fact} |" for name, fact in facts.items())])
    (options.output / "soak.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if len(answered) == options.asks == sum(by_reader.values()) else 1


async def soak(
    model: str, examples: Sequence[Example], asks: int, clients: int, swaps: int
) -> tuple[list[Answered], list[int]]:
    """Everything that was answered, and the process's memory in MB before the end of every stretch between swaps."""
    waiting = iter(list(islice((one for some in repeat(examples) for one in some), asks)))
    answered: list[Answered] = []
    memory_mb: list[int] = []
    stretch = asks // (swaps + 1)
    process = psutil.Process()
    with tqdm(total=asks, unit="ask") as bar:

        async def client(engine: Engine) -> None:
            for example in waiting:
                answered.append(Answered(example, await engine.ask(example.question, example.context)))
                bar.update()
                if len(answered) % stretch == 0 and len(memory_mb) < swaps:
                    memory_mb.append(round(process.memory_info().rss / 2**20))
                    await engine.swap(_reader(model, len(memory_mb)))  # clients wait: all could be over before

        async with Engine(_reader(model, 0), max_waiting=clients) as engine:
            await asyncio.gather(*(client(engine) for _ in range(clients)))
    return answered, [*memory_mb, round(process.memory_info().rss / 2**20)]


def _reader(model: str, place: int) -> Reader:
    reader = Reader.load(model)
    if place % 2:
        reader.name, reader.length_weight = f"{reader.name}, short", reader.length_weight + 1
    return reader


def _differs(one: Answered, reader: Reader) -> bool:
    alone = reader.read(one.example.question, one.example.context)
    return [(a.start, a.end) for a in alone.answers] != [(a.start, a.end) for a in one.reading.answers]


if __name__ == "__main__":
    sys.exit(main())
