"""Domain adaptation: masked-language modelling with whole-word masks on unlabelled text, before fine-tuning.

A base that has read a domain's texts needs fewer questions about them (Gururangan et al. 2020, "Don't Stop
Pretraining"). What comes out is a base for the fine-tuning, not a checkpoint that answers. Resuming, precision and
every flag of `TrainingArguments` are as in `finetune`; which tokens are masked is left to `masking`, and cutting the
vocabulary to single characters to `vocabulary`.
"""

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    set_seed,
)
from transformers.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

from qa_engine.attention import fastest
from qa_engine.checkpoints import sha256_of
from qa_engine.errors import CheckpointBroken, DataError, DuwenError
from qa_engine.memory import keep_freed_memory
from qa_engine.reader import BUNDLED
from trainer.features import LikeLengths
from trainer.finetune import FinetuneArguments, command_line
from trainer.masking import MaskedWindows, MaskingVocabulary, TextWindow, collate_masked, text_windows
from trainer.runs import EpochCallback, TrimMemory, show_figures, starting_point
from trainer.squad import load_contexts, read_text
from trainer.vocabulary import is_joined, joins_punctuation, single_characters

log = logging.getLogger(__name__)

_CARD = """\
---
language: zh
library_name: transformers
base_model: {base}
tags: [duwen]
---

# A base for a Chinese reader

Made by `python -m trainer adapt` from `{base}`. It is to be fine-tuned, not to answer:
`python -m trainer --base FOLDER`.
{changes}
```console
{command}
```

With torch {torch} and transformers {transformers}.
"""


@dataclass
class CorpusArguments:
    """What to read, with which base, and where the adapted base goes."""

    output: Path = field(metadata={"help": "the folder to write the adapted base to", "aliases": ["-o"]})
    corpus: list[str] = field(
        default_factory=list,
        metadata={"help": "UTF-8 text files; of .json files in SQuAD's layout the contexts, never a question"},
    )
    base: str = field(
        default=str(BUNDLED),
        metadata={"help": "a BERT-type model: folder or Hub id (default: the bundled checkpoint)"},
    )
    single_characters: bool = field(
        default=False,
        metadata={
            "help": "first take the Chinese pieces of several characters out of a Unigram vocabulary, so that answers "
            "can begin and end at each character; without --corpus, only that"
        },
    )
    single_punctuation: bool = field(
        default=False,
        metadata={
            "help": "the same for pieces that join punctuation alone: hardly longer texts, more than half of the gain"
        },
    )
    max_tokens: int = field(default=256, metadata={"help": "window length in tokens"})
    hold_back: float = field(
        default=0.05, metadata={"help": "share of the windows kept to measure on before and after"}
    )
    dropout: float = field(default=0.0, metadata={"help": "hidden and attention dropout"})


@dataclass
class AdaptArguments(FinetuneArguments):
    """`FinetuneArguments` with what adapting does otherwise: the last weights count, and nothing is compared."""

    output_dir: str | None = field(default="var/adapting", metadata={"help": "where an unfinished adaptation lives"})
    learning_rate: float = 1e-4
    num_train_epochs: float = 1
    save_strategy: str = "steps"
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None

    def __post_init__(self) -> None:
        if self.push_to_hub:
            raise ValueError(
                "--push_to_hub: adapt uploads nothing; the checkpoint that is trained from its base can be"
            )
        super().__post_init__()


@dataclass(frozen=True)
class CorpusSource:
    """A file of the corpus, with its fingerprint."""

    name: str
    sha256: str
    texts: tuple[str, ...]

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts))


@dataclass(frozen=True)
class HeldOut:
    """How well masked tokens of held-back windows are guessed: mean cross entropy in nats, and share from 0 to 1."""

    loss: float
    accuracy: float

    def __str__(self) -> str:
        return f"loss {self.loss:.3f}, masked accuracy {self.accuracy:.1%}"


def adapt(corpus: CorpusArguments, args: AdaptArguments) -> Path | None:
    """Adapt a base, write it. Returns its folder; None on the processes that only help (DDP).

    Raises DataError for a corpus that cannot be used, CheckpointBroken for such a base, and DuwenError where a flag
    cannot be followed.
    """
    is_cut = corpus.single_characters or corpus.single_punctuation
    if not corpus.corpus and not is_cut:
        raise DuwenError("nothing to do: give --corpus, --single_characters or --single_punctuation")
    if corpus.output.exists():
        raise DuwenError(f"{corpus.output} is there already: name another folder, or delete it")
    resumed_from = starting_point(args.output_dir, args.resume) if corpus.corpus else None
    set_seed(args.seed)
    sources = [_source(name) for name in corpus.corpus]
    base = _load_base(corpus, on_cpu=args.device.type == "cpu")
    changes = list[str]()
    if is_cut:
        base, change = base.with_single_characters(is_joined if corpus.single_characters else joins_punctuation)
        changes.append(change)
    if sources:
        trainer = MaskTrainer(corpus, args, base, sources)
        before = trainer.measure()
        log.info("held out, before: %s", before)
        trainer.train(resume_from_checkpoint=resumed_from)
        after = trainer.measure()
        log.info("held out, after: %s", after)
        changes.append(_learned(sources, before, after))
        if not trainer.is_world_process_zero():
            return None
    card = _CARD.format(
        base=_name(corpus.base),
        changes="".join(f"\n{change}\n" for change in changes),
        command=command_line(args.hub_token),
        torch=version("torch"),
        transformers=version("transformers"),
    )
    _write(corpus.output, base, card)
    for leftover in Path(args.output_dir or ".").glob("checkpoint-*") if sources else ():
        shutil.rmtree(leftover)
    return corpus.output


@dataclass(frozen=True)
class _Base:
    """A model with a head for masked tokens, its tokenizer, and the answering head that it came with, if any."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    answering_head: Mapping[str, Tensor]

    def with_single_characters(self, is_removed: Callable[[str], bool]) -> tuple["_Base", str]:
        """The base with a smaller vocabulary, and what that did, in a sentence."""
        before = len(self.tokenizer)
        tokenizer, cut = single_characters(self.model, self.tokenizer, is_removed)
        change = (
            f"Vocabulary: {cut.removed} joined pieces removed, {cut.added} characters added, "
            f"{len(tokenizer)} of {before} tokens left."
        )
        log.info("%s", change)
        return _Base(self.model, tokenizer, self.answering_head), change


class MaskTrainer(Trainer):
    """The `Trainer` for masked tokens. The vocabulary's scores are computed where a token is masked, and only there:
    for all tokens they would cost as much as half the model.
    """

    def __init__(
        self, corpus: CorpusArguments, args: AdaptArguments, base: _Base, sources: Sequence[CorpusSource]
    ) -> None:
        model, tokenizer = base.model, base.tokenizer
        if args.device.type == "cpu":
            keep_freed_memory()
        _ensure_mask(model, tokenizer)
        vocabulary = MaskingVocabulary.of(tokenizer)
        training, held_out = _split(corpus, args, sources, model, tokenizer, vocabulary)
        self.masked_windows = MaskedWindows(training, vocabulary, seed=args.seed)
        self.held_out = MaskedWindows(held_out, vocabulary, seed=args.seed)
        self._collate = partial(collate_masked, pad_id=tokenizer.pad_token_id or 0)
        self._selected = _OnlyMasked(model)
        super().__init__(
            model=model,
            args=args,
            train_dataset=self.masked_windows,
            eval_dataset=self.held_out,
            processing_class=tokenizer,
            data_collator=self._collate,
        )
        self.model_accepts_loss_kwargs = False  # our loss is a mean over the batch
        self._right: list[Tensor] = []  # masked accuracy of every batch since the last log
        show_figures(self)
        self.add_callback(TrimMemory())
        self.add_callback(EpochCallback(self.masked_windows))
        log.info("%d windows an epoch, %d held out", len(training), len(held_out))

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> LikeLengths:
        return LikeLengths(self.masked_windows, self.args.train_batch_size)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean cross entropy over the masked tokens, in float32 whatever the model computes in."""
        logits, labels = self._masked_logits(model, inputs)
        count = max(1, len(labels))  # a batch of unknown characters has no label
        loss = cross_entropy(logits, labels, reduction="sum") / count
        if model.training:
            self._right.append((logits.detach().argmax(-1) == labels).float().sum() / count)
        return (loss, {"logits": logits}) if return_outputs else loss

    def _masked_logits(self, model: torch.nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Scores [masked token, vocabulary] in float32, and what stood there [masked token]."""
        is_masked = inputs["labels"] >= 0
        with self._selected(is_masked):
            output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return output.logits.float(), inputs["labels"][is_masked]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the `Trainer` does, with the masked accuracy beside the loss."""
        if "loss" in logs and self._right:
            logs |= {"masked_accuracy": torch.stack(self._right).mean().item()}
            self._right.clear()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss and accuracy of the model as it is now, on the held-out windows."""
        held_out = self.measure()
        metrics = {f"{metric_key_prefix}_loss": held_out.loss, f"{metric_key_prefix}_accuracy": held_out.accuracy}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def measure(self) -> HeldOut:
        """The held-out windows with the same masks each time, by the model as it is now; every process reads all."""
        model = self.accelerator.unwrap_model(self.model).to(self.args.device)
        order = sorted(range(len(self.held_out)), key=self.held_out.lengths.__getitem__)
        loss, right, count = 0.0, 0, 0
        model.eval()
        for at in tqdm(
            range(0, len(order), self.args.eval_batch_size),
            desc="held out",
            unit="batch",
            leave=False,
            disable=self.args.disable_tqdm or not self.is_world_process_zero(),
        ):
            windows = [self.held_out[index] for index in order[at : at + self.args.eval_batch_size]]
            batch = {name: tensor.to(self.args.device) for name, tensor in self._collate(windows).items()}
            with self.compute_loss_context_manager():
                logits, labels = self._masked_logits(model, batch)
            loss += cross_entropy(logits, labels, reduction="sum").item()
            right += int((logits.argmax(-1) == labels).sum())
            count += len(labels)
        model.train()
        return HeldOut(loss / max(1, count), right / max(1, count))


class _OnlyMasked:
    """Lets only chosen tokens through to the matrix that scores the vocabulary, which is tied to the embeddings."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._is_chosen: Tensor | None = None
        output: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        output.register_forward_pre_hook(self._select)

    def __call__(self, is_chosen: Tensor) -> "_OnlyMasked":
        self._is_chosen = is_chosen
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._is_chosen = None

    def _select(self, module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return None if self._is_chosen is None else (inputs[0][self._is_chosen],)


def _source(name: str) -> CorpusSource:
    path = Path(name)
    texts = load_contexts(name) if path.suffix == ".json" else [read_text(name)]
    return CorpusSource(path.name, sha256_of(path), tuple(texts))


def _split(
    corpus: CorpusArguments,
    args: AdaptArguments,
    sources: Sequence[CorpusSource],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: MaskingVocabulary,
) -> tuple[list[TextWindow], list[TextWindow]]:
    """(windows to learn from, windows to measure on). A text that stands in several files counts once."""
    positions = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", corpus.max_tokens))
    room = corpus.max_tokens - len(vocabulary.prefix) - len(vocabulary.suffix)
    if corpus.max_tokens > positions:
        raise DuwenError(f"{corpus.base} reads at most {positions} tokens at once: lower --max_tokens")
    if room < 16:
        raise DuwenError(f"--max_tokens {corpus.max_tokens} is too short to learn from: raise it")
    texts = list(dict.fromkeys(text for source in sources for text in source.texts))
    quiet = bool(args.disable_tqdm) or args.process_index > 0
    bar = tqdm(texts, desc="cutting into words and tokens", unit="text", disable=quiet, leave=False)
    windows = [window for text in bar for window in text_windows(text, tokenizer, room)]
    held_back = math.ceil(corpus.hold_back * len(windows))
    if not 0 < held_back < len(windows):
        raise DataError(
            f"the corpus comes to {len(windows)} windows of {corpus.max_tokens} tokens: too few to learn from and to "
            f"measure on with --hold_back {corpus.hold_back}"
        )
    order = np.random.default_rng(args.seed).permutation(len(windows))
    return [windows[place] for place in order[held_back:]], [windows[place] for place in order[:held_back]]


def _load_base(corpus: CorpusArguments, on_cpu: bool) -> _Base:
    """The base in float32, with a fresh head for masked tokens where it has none, tied to the embeddings."""
    verbosity = get_verbosity()
    set_verbosity_error()  # type: ignore[no-untyped-call] # heads that are missing are reported as damage; we say what becomes of them
    try:
        config = AutoConfig.from_pretrained(
            corpus.base,
            hidden_dropout_prob=corpus.dropout,
            attention_probs_dropout_prob=corpus.dropout,
            tie_word_embeddings=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(corpus.base)
        answering, loading = AutoModelForQuestionAnswering.from_pretrained(
            corpus.base, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        model, masked_loading = AutoModelForMaskedLM.from_pretrained(
            corpus.base,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            attn_implementation=fastest(config, on_cpu=on_cpu),
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointBroken(f"{corpus.base} cannot be used as a base: {reason}") from error
    finally:
        set_verbosity(verbosity)
    if masked_loading["missing_keys"]:
        log.info("%s has no head for masked tokens: a fresh one is tied to its embeddings", _name(corpus.base))
    head = {
        name: weights
        for name, weights in answering.state_dict().items()
        if not name.startswith(f"{answering.base_model_prefix}.")
    }
    return _Base(model, tokenizer, {} if set(head) & set(loading["missing_keys"]) else head)


def _ensure_mask(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add a mask token where the tokenizer has none; its embedding begins as the mean of all others."""
    if tokenizer.mask_token is not None:
        return
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    mask = tokenizer.mask_token_id
    if mask >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(mask + 1, mean_resizing=False)
    embeddings = model.get_input_embeddings().get_parameter("weight")
    with torch.no_grad():
        embeddings[mask] = embeddings[:mask].mean(0)


def _name(base: str) -> str:
    folder = Path(base)
    return folder.resolve().name if folder.is_dir() else base


def _learned(sources: Sequence[CorpusSource], before: HeldOut, after: HeldOut) -> str:
    """What the base has read and what it learned, as Markdown."""
    rows = [f"| {source.name} | {source.characters:,} | `{source.sha256}` |" for source in sources]
    return "\n".join(
        [
            "Masked tokens of held-back windows, whole words masked:",
            "",
            "| | loss | accuracy |",
            "| --- | --- | --- |",
            f"| before | {before.loss:.3f} | {before.accuracy:.1%} |",
            f"| after | {after.loss:.3f} | {after.accuracy:.1%} |",
            "",
            "It has read:",
            "",
            "| file | characters | sha256 |",
            "| --- | --- | --- |",
            *rows,
        ]
    )


def _write(folder: Path, base: _Base, card: str) -> None:
    """Write beside the final name and rename: a half-written base has no name. Weights in float16 where they fit."""
    partial_folder = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    weights = {**base.model.state_dict(), **base.answering_head}
    if all(bool(tensor.half().isfinite().all()) for tensor in weights.values()):
        base.model.half()  # type: ignore[no-untyped-call]
        weights = {**base.model.state_dict(), **{name: tensor.half() for name, tensor in base.answering_head.items()}}
    base.model.save_pretrained(partial_folder, state_dict=weights)
    base.tokenizer.save_pretrained(partial_folder)
    (partial_folder / "README.md").write_text(card, encoding="utf-8")
    for path in partial_folder.iterdir():
        path.chmod(0o644)  # some writers make files for their user alone
    partial_folder.rename(folder)
