"""The learning round, end to end: corrections → export → training → a new checkpoint → the same questions again.

The domain is made up: the log of a tea mountain, with words for everyday things that no reader has met (tea/). A bot's
store gets 30 questions and what its users say of the answers; `python -m bot export` writes them, `python -m trainer`
trains on top of the bundled checkpoint, mixed with the sample so that nothing else is forgotten; a running engine
takes the result up. Figures come out for the corrected questions, for others of the same domain that were never
corrected, and for a file of your own (--guard), before and after. Flags that are not this program's go to the trainer.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.learning import located
from bot.store import Author, Chat, Correction, Store, Verdict
from bot.store.migrating import migrate
from qa_engine import Engine, Reader
from qa_engine.errors import DuwenError
from qa_engine.reader import BUNDLED
from qa_engine.reloading import CheckpointWatcher, Loaded
from trainer.evaluate import Evaluation, asks_of, evaluate
from trainer.squad import Example, load

TEA = Path(__file__).parent / "tea"
SAMPLE = Path(__file__).parents[1] / "trainer" / "sample"
REPLAYED = [
    str(SAMPLE / f"{name}.json") for name in ("train", "everyday", "encyclopaedia", "encyclopaedia-traditional")
]
CHAT = Chat(1, "private")
USER = Author(1, "demo")
TRAINING = {
    "--num_train_epochs": "8",
    "--learning_rate": "5e-5",
    "--eval_strategy": "no",
    "--save_strategy": "no",
    "--load_best_model_at_end": "false",
}


@dataclass(frozen=True)
class Round:
    """Where a round takes place, what it starts from, and what it is measured on, by name."""

    folder: Path
    base: Path
    measured: Mapping[str, Sequence[Example]]

    @property
    def database_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.folder.absolute() / 'duwen.db'}"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def corrections(self) -> Path:
        return self.folder / "corrections.json"


def main(arguments: Sequence[str]) -> int:
    """Run the round and print its figures; 1 where a part of it fails."""
    parser = argparse.ArgumentParser(prog="python benchmarks/learning.py", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("var/learn-demo"), help="a new one (default: %(default)s)")
    parser.add_argument("--base", type=Path, default=BUNDLED, help="the checkpoint to learn (default: the bundled one)")
    parser.add_argument("--guard", help="a labelled file that the round should not make worse")
    parser.add_argument("--guard-questions", type=int, metavar="N", help="only the first N of them")
    options, trainer_flags = parser.parse_known_args(arguments)
    if options.folder.exists():
        print(f"{options.folder} is there already: delete it, or name another --folder", file=sys.stderr)
        return 1
    options.folder.mkdir(parents=True)
    try:
        corrected = load(str(TEA / "corrections.json")).examples
        measured = {"corrected": corrected, "same domain": load(str(TEA / "test.json")).examples}
        if options.guard:
            measured["guard"] = load(options.guard).examples[: options.guard_questions]
        return asyncio.run(learn(Round(options.folder, options.base, measured), trainer_flags))
    except (DuwenError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


async def learn(here: Round, trainer_flags: Sequence[str]) -> int:
    """Judge, export, train, take up, ask again."""
    reader = await asyncio.to_thread(Reader.load, here.base)
    before = figures(reader, here)
    right = await judge(reader, here)
    print(f"{right} answers were right, {len(here.measured['corrected']) - right} were corrected", flush=True)
    run("bot", "export", "-o", str(here.corrections), DATABASE_URL=here.database_url)
    async with Engine(reader) as engine:
        places = ["--checkpoint_dir", str(here.checkpoints), "--output_dir", str(here.folder / "training")]
        data = ["--train", str(here.corrections), "--dev", str(here.corrections)]
        data += ["--replay", "10", "--replay_from", *REPLAYED]
        defaults = [word for flag, value in TRAINING.items() if flag not in trainer_flags for word in (flag, value)]
        await asyncio.to_thread(run, "trainer", "--base", str(here.base), *data, *places, *defaults, *trainer_flags)
        change = await CheckpointWatcher(engine, here.checkpoints).look()
        if not isinstance(change, Loaded):
            print(f"error: the new checkpoint was not taken up: {change}", file=sys.stderr)
            return 1
        print(f"{change.name} answers from now on")
        after = figures(engine.reader, here)
    told = {name: {"before": before[name].figures(), "after": after[name].figures()} for name in before}
    (here.folder / "figures.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(f"\n{'':12} {'questions':>9} {'EM before':>10} {'after':>6} {'F1 before':>10} {'after':>6}")
    for name, then in before.items():
        now = after[name]
        print(f"{name:12} {then.questions:9} {then.em:10.1f} {now.em:6.1f} {then.f1:10.1f} {now.f1:6.1f}")
    return 0


async def judge(reader: Reader, here: Round) -> int:
    """Ask every question as a chat would, and say what is right; returns how many answers were right at once."""
    await migrate(here.database_url)
    store = Store(here.database_url)
    right = 0
    try:
        for example in here.measured["corrected"]:
            context = await store.set_context(CHAT, example.context, USER, None)
            reading = reader.read(example.question, context.text, top_k=5)
            number = await store.record_question(
                chat_id=CHAT.id,
                context_id=context.id,
                author=USER,
                message_id=None,
                text=example.question,
                answer=reading.best,
                candidates=reading.answers,
                no_answer_score=reading.no_answer_score,
                checkpoint=reading.checkpoint,
                latency_ms=0,
            )
            question = await store.question(CHAT.id, number or 0)
            assert question is not None and example.span is not None  # noqa: S101 - just written; the file has spans
            if reading.best and (reading.best.start, reading.best.end) == (example.span.start, example.span.end):
                right += 1
                await store.judge(question, USER.id, Verdict.RIGHT)
            else:
                span = located(context.text, example.span.text, example.span.start) or (None, None)
                await store.judge(question, USER.id, Verdict.WRONG, Correction(example.span.text, *span))
    finally:
        await store.close()
    return right


def figures(reader: Reader, here: Round) -> dict[str, Evaluation]:
    """What the reader is worth on everything that is measured."""
    return {
        name: evaluate(examples, reader.read_many(asks_of(examples), progress=sys.stderr.isatty()))
        for name, examples in here.measured.items()
    }


def run(module: str, *arguments: str, **settings: str) -> None:
    """`python -m module` with our environment. Raises CalledProcessError where it fails."""
    subprocess.run([sys.executable, "-m", module, *arguments], env={**os.environ, **settings}, check=True)  # noqa: S603


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
