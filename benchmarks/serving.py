"""`python -m benchmarks.serving`: how many questions a second, beside the readers that one could install instead.

Same weights, same questions, same threads, each contestant in a process of its own (`peers.py`), one after the other,
in another order every round; medians over rounds count. The peers compute in float32, as they come. `transformers` is
the last release that had a question-answering pipeline. Their environments are made below the output folder, once, and
borrow this one's torch.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from qa_engine.reader import BUNDLED
from trainer.finetune import SAMPLE_DEV
from trainer.metrics import average, score
from trainer.squad import Example, load

PEERS = Path(__file__).parent / "peers.py"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Contestant:
    """A reader of `peers.py`, its number (clients, or batch size), and the packages that it needs of its own."""

    label: str
    reader: str
    number: int = 1
    environment: str = ""
    packages: tuple[str, ...] = ()


PIPELINE = ("transformers", ("transformers==5.2.0",))
CONTESTANTS = (
    *(Contestant(f"duwen, {number} at a time", "duwen", number) for number in (1, 8, 32, 128)),
    Contestant("transformers 5.2 pipeline", "pipeline", 1, *PIPELINE),
    Contestant("transformers 5.2 pipeline, batches of 16", "pipeline", 16, *PIPELINE),
    Contestant("Haystack's reader", "haystack", 1, "haystack", ("haystack-ai", "transformers-haystack")),
    Contestant("notebook: 512 tokens, argmax", "notebook"),
)
BASELINE = "transformers 5.2 pipeline"


@dataclass(frozen=True)
class Result:
    """Medians over the rounds. Latencies in milliseconds, None where questions are read in batches."""

    label: str
    questions_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    em: float
    f1: float
    peak_mb: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=SAMPLE_DEV, help="SQuAD, CMRC 2018 or DRCD file (default: the sample)")
    parser.add_argument("--questions", type=int, default=200, help="the first so many that have an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="READER", help="duwen, pipeline, haystack, notebook")
    parser.add_argument("--model", default=str(BUNDLED), help="checkpoint folder (default: the bundled one)")
    parser.add_argument("--output", type=Path, default=Path("var/benchmarks"))
    options = parser.parse_args(arguments)
    examples = [example for example in load(options.data).examples if not example.is_impossible][: options.questions]
    contestants = [one for one in CONTESTANTS if not options.only or one.reader in options.only]
    options.output.mkdir(parents=True, exist_ok=True)
    results = run(contestants, examples, options.model, options.rounds, options.output)
    write(results, examples, options)


def run(contestants: list[Contestant], examples: list[Example], model: str, rounds: int, output: Path) -> list[Result]:
    pythons = {one.label: _python_of(one, output) for one in contestants}
    runs: dict[str, list[dict[str, Any]]] = {one.label: [] for one in contestants}
    with tempfile.TemporaryDirectory() as folder, tqdm(total=rounds * len(contestants), unit="run") as bar:
        questions = Path(folder, "questions.json")
        asked = [{"id": one.id, "question": one.question, "context": one.context} for one in examples]
        questions.write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
        for number in range(rounds):
            turn = number * len(contestants) // rounds
            for one in contestants[turn:] + contestants[:turn]:
                bar.set_description(one.label)
                command = [str(pythons[one.label]), str(PEERS), one.reader, model, str(questions), str(one.number)]
                environment = {"PYTHONPATH": str(ROOT) if one.reader == "duwen" else "", "HF_HUB_OFFLINE": "1"}
                done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)  # noqa: S603
                if done.returncode:
                    sys.exit(f"{one.label} failed:\n{done.stderr[-2000:]}")
                runs[one.label].append(json.loads(done.stdout))
                bar.update()
    return [_result(one, runs[one.label], examples) for one in contestants]


def _python_of(contestant: Contestant, output: Path) -> Path:
    """This Python, or one with the contestant's packages in front of this one's."""
    if not contestant.environment:
        return Path(sys.executable)
    folder = (output / f"venv-{contestant.environment}").resolve()
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        paths = {"base": str(folder), "platbase": str(folder)}
        Path(sysconfig.get_path("purelib", "venv", vars=paths), "borrowed.pth").write_text(
            sysconfig.get_path("purelib") + "\n", encoding="utf-8"
        )
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *contestant.packages], check=True)  # noqa: S603
        (folder / "ready").touch()
    return python


def _result(contestant: Contestant, runs: list[dict[str, Any]], examples: list[Example]) -> Result:
    answers = runs[0]["answers"]
    scores = average([score(text, one.answers) for text, one in zip(answers, examples, strict=True)])
    in_batches = contestant.reader == "pipeline" and contestant.number > 1
    quantiles = [statistics.quantiles(one["latencies"], n=20) for one in runs]
    return Result(
        contestant.label,
        statistics.median(len(examples) / one["seconds"] for one in runs),
        None if in_batches else 1000 * statistics.median(one[9] for one in quantiles),
        None if in_batches else 1000 * statistics.median(one[18] for one in quantiles),
        100 * scores.em,
        100 * scores.f1,
        statistics.median(one["peak_mb"] for one in runs),
    )


def table(results: list[Result]) -> str:
    """Markdown. Throughput as a multiple of the pipeline's, one question at a time, where that took part."""
    baseline = next((one for one in results if one.label == BASELINE), results[-1])
    lines = [
        f"| reader | questions/s | × {baseline.label} | p50 | p95 | EM | F1 | peak memory |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in results:
        ratio = one.questions_per_second / baseline.questions_per_second
        p50, p95 = ("–" if ms is None else f"{ms:.0f} ms" for ms in (one.p50_ms, one.p95_ms))
        lines.append(
            f"| {one.label} | {one.questions_per_second:.1f} | {ratio:.2f} | {p50} | {p95} | {one.em:.1f} | "
            f"{one.f1:.1f} | {one.peak_mb:,.0f} MB |"
        )
    return "\n".join(lines)


def plot(results: list[Result]) -> Figure:
    """Throughput by the number of clients; the peers, which take one question at a time, as lines."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    ours = [one for one in results if one.label.startswith("duwen")]
    clients = [int(one.label.split()[1]) for one in ours]
    axes.plot(clients, [one.questions_per_second for one in ours], "o-", label="duwen")
    peers = [one for one in results if not one.label.startswith("duwen")]
    for place, one in enumerate(peers):
        axes.axhline(one.questions_per_second, color=f"C{place + 1}", linestyle="--", label=one.label)
    if clients:
        axes.set_xscale("log", base=2)
        axes.set_xticks(clients, [str(number) for number in clients])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("questions at a time")
    axes.set_ylabel("questions a second")
    axes.legend()
    return figure


def machine() -> str:
    """What the figures were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}"


def write(results: list[Result], examples: list[Example], options: argparse.Namespace) -> None:
    text = f"{len(examples)} questions of {Path(options.data).name}, {options.rounds} rounds; {machine()}.\n\n"
    text += table(results) + "\n"
    (options.output / "serving.md").write_text(text, encoding="utf-8")
    facts = {"machine": machine(), "data": Path(options.data).name, "questions": len(examples)}
    facts |= {"rounds": options.rounds, "results": [vars(one) for one in results]}
    (options.output / "serving.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    plot(results).savefig(options.output / "serving.png", dpi=120)
    print(text)


if __name__ == "__main__":
    main()
