"""`python -m trainer` fine-tunes and publishes a checkpoint; `python -m trainer evaluate` measures one;
`python -m trainer adapt` makes a base out of another one and unlabelled text.

Exit status: 0 done, 1 a reported failure, 2 wrong usage. Results go to stdout, messages to stderr.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from qa_engine.errors import DuwenError


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
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
    checkpoint = finetune(data, args)
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
        prog="python -m trainer evaluate", description="EM and F1 of a checkpoint on labelled files, as JSON."
    )
    parser.add_argument("--data", nargs="+", required=True, help="SQuAD, CMRC 2018 or DRCD files, or hf:NAME[:SPLIT]")
    parser.add_argument("--checkpoint", help="folder or Hub id (default: the bundled checkpoint)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    options = parser.parse_args(arguments)

    from qa_engine import Reader
    from trainer.evaluate import asks_of, evaluate
    from trainer.squad import load_all

    data_sets = load_all(options.data)
    examples = [example for data_set in data_sets for example in data_set.examples]
    reader = Reader.load(options.checkpoint, device=options.device, dtype=options.dtype)
    readings = reader.read_many(asks_of(examples), progress=True)
    result = {"checkpoint": reader.name, "data": [one.source.name for one in data_sets]}
    print(json.dumps(result | evaluate(examples, readings).figures(), ensure_ascii=False, indent=2))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
