"""`python -m trainer` fine-tunes and publishes a checkpoint; `python -m trainer evaluate` measures one;
`python -m trainer adapt` makes a base out of another one and unlabelled text.

Exit status: 0 done, 1 a reported failure (a checkpoint that the gate keeps from being published is one), 2 wrong usage.
Results go to stdout, messages to stderr.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from qa_engine.errors import DuwenError


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells of its fonts
    try:
        if arguments and arguments[0] == "evaluate":
            _evaluate(arguments[1:])
        elif arguments and arguments[0] == "adapt":
            _adapt(arguments[1:])
        else:
            _finetune(arguments)
    except (DuwenError, OSError) as error:  # of the system's: what cannot be read or written
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; a training goes on from its last saved state with --resume", file=sys.stderr)
        return 1
    return 0


def _finetune(arguments: Sequence[str]) -> None:
    import torch
    from transformers import HfArgumentParser

    from trainer.finetune import DataArguments, FinetuneArguments, finetune

    parser = HfArgumentParser(
        [DataArguments, FinetuneArguments],  # type: ignore[list-item]
        prog="python -m trainer",
        description="Fine-tunes a reader and publishes it as a checkpoint. `python -m trainer evaluate` measures one, "
        "`python -m trainer adapt` prepares a base with unlabelled text.",
        epilog="All flags after --resume are Hugging Face TrainingArguments.",
    )
    try:
        data, args = parser.parse_args_into_dataclasses(list(arguments))
    except ValueError as error:  # flags that contradict each other
        parser.error(str(error))
    try:
        checkpoint = finetune(data, args)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # its threads may abort a process that just ends
    if checkpoint is not None:
        print(checkpoint)


def _adapt(arguments: Sequence[str]) -> None:
    from transformers import HfArgumentParser

    from trainer.adapt import AdaptArguments, CorpusArguments, adapt

    parser = HfArgumentParser(
        [CorpusArguments, AdaptArguments],  # type: ignore[list-item]
        prog="python -m trainer adapt",
        description="Teaches a base the words of unlabelled text by masking some, before it is fine-tuned.",
        epilog="All flags after --resume are Hugging Face TrainingArguments.",
    )
    try:
        corpus, args = parser.parse_args_into_dataclasses(list(arguments))
    except ValueError as error:  # flags that contradict each other
        parser.error(str(error))
    folder = adapt(corpus, args)
    if folder is not None:
        print(folder)


def _evaluate(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m trainer evaluate", description="What a checkpoint is worth on labelled files, as JSON."
    )
    parser.add_argument("--data", nargs="+", required=True, help="SQuAD, CMRC 2018 or DRCD files, or hf:NAME[:SPLIT]")
    parser.add_argument("--checkpoint", help="folder or Hub id (default: the bundled checkpoint)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--plots", type=Path, metavar="DIR", help="also write reliability.png and coverage.png there")
    parser.add_argument(
        "--unanswerable-pairs",
        type=int,
        default=0,
        metavar="N",
        help="also read N questions on contexts that do not answer them: AUROC and refusals where the files have no "
        'unanswerable questions, under "off_topic"; the other figures stay the files\' own',
    )
    parser.add_argument("--seed", type=int, default=0, help="which pairs are drawn (default: 0)")
    options = parser.parse_args(arguments)

    from qa_engine import Reader
    from trainer.calibrate import off_topic
    from trainer.evaluate import asks_of, evaluate, refused_share, separation
    from trainer.report import evaluation_plots
    from trainer.squad import load_all

    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before the reading
    data_sets = load_all(options.data)
    examples = [example for data_set in data_sets for example in data_set.examples]
    reader = Reader.load(options.checkpoint, device=options.device, dtype=options.dtype)
    readings = reader.read_many(asks_of(examples), progress=True)
    evaluation = evaluate(examples, readings)
    result = {"checkpoint": reader.name, "data": [one.source.name for one in data_sets]} | evaluation.report()
    pairs = off_topic(examples, options.unanswerable_pairs, options.seed)
    if pairs:
        refused = reader.read_many(asks_of(pairs), progress=True)
        answerable = [one for one, example in zip(readings, examples, strict=True) if not example.is_impossible]
        figures = {"auroc": separation(answerable, refused), "refused": refused_share(refused)}
        result["off_topic"] = {"questions": len(pairs)} | figures
    if options.plots:
        for name, png in evaluation_plots(evaluation).items():
            (options.plots / name).write_bytes(png)
    print(json.dumps(result, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
