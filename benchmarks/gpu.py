"""`python -m benchmarks.gpu`: questions a second and share of the peak on a GPU, by the number of clients.

The same measurement as `benchmarks.limit`, at 1 to 512 clients. Without a GPU it says so, and that is no failure.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.limit import multiply_adds, peak_flops, read_all
from benchmarks.serving import machine
from qa_engine import Ask, Reader
from trainer.finetune import SAMPLE_DEV
from trainer.squad import load

CLIENTS = (1, 8, 32, 128, 512)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=SAMPLE_DEV, help="SQuAD, CMRC 2018 or DRCD file (default: the sample)")
    parser.add_argument("--output", type=Path, default=Path("var/benchmarks"))
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("There is no GPU that torch can use here; python -m benchmarks.limit measures the CPU.")
        return
    reader = Reader.load(device="cuda")
    examples = load(options.data).examples
    windows = [window for one in examples for window in reader.encode(Ask(one.question, one.context)).windows]
    work = 2 * sum(multiply_adds(reader, len(window)) for window in windows)
    peak = peak_flops(reader)
    rows = []
    for clients in CLIENTS:
        reader.contexts.clear()
        seconds = asyncio.run(read_all(reader, examples, clients))
        rows.append((clients, len(examples) / seconds, work / seconds / 1e12, work / seconds / peak))
    lines = [
        f"{len(examples)} questions of {Path(options.data).name}, {reader.dtype}; {machine()}; "
        f"peak {peak / 1e12:.0f} TFLOP/s",
        "",
        "| clients | questions/s | TFLOP/s | share of peak |",
        "| ---: | ---: | ---: | ---: |",
        *(f"| {clients} | {rate:,.0f} | {flops:.2f} | {share:.3f} |" for clients, rate, flops, share in rows),
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "gpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (options.output / "gpu.json").write_text(json.dumps({"machine": machine(), "rows": rows}), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
