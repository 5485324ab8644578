"""A loaded checkpoint: text in, spans out, in three steps (`encode → forward → decode`) that can overlap.

Knows one model and its device. Queues, batches over chats and swapping belong to `engine`.
"""

import logging
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Self

import numpy as np
import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from qa_engine.attention import fastest
from qa_engine.checkpoints import (
    MANIFEST,
    Calibration,
    Manifest,
    WindowSettings,
    read_manifest,
    refuse_pickles,
    verify,
)
from qa_engine.contexts import Contexts, KnownContext
from qa_engine.cores import cores
from qa_engine.errors import CheckpointBroken, CheckpointError, CheckpointMissing, EmptyQuestion
from qa_engine.spans import TokenSpans, best_spans
from qa_engine.windows import Window, WindowMaker, WindowSizes

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "bundled"
ASKS_AT_ONCE = 32
CANDIDATE_SPANS = 64  # of a context
WINDOW_SPANS = 8  # of each of its windows
FORWARD_TOKENS = 8192  # tokens, padding included, that go through the model at once: bounds memory
ALIKE = 0.9  # windows go through the model together when the shortest has this share of the longest's tokens
_OPENING = "「『“‘（(《〈【〔[｛{"
_CLOSING = "」』”’）)》〉】〕]｝}"
_NOT_LAST = "，、；：。,;:"  # an answer may end with what ends a sentence in other ways: 「加油！」
_NOT_FIRST = _NOT_LAST + "！？!?"
_CLOSED_BY = dict(zip(_OPENING, _CLOSING, strict=True))
_REGIONAL_INDICATORS = "".join(map(chr, range(0x1F1E6, 0x1F200)))


@dataclass(frozen=True)
class Answer:
    """A span of the context: `context[start:end] == text`; `score` is its probability."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Reading:
    """What a reader found: distinct answers that do not overlap, best first.

    `no_answer_score` is the probability that the context does not say, if it is that or the best answer (Devlin et al.
    2019 compare these two); `is_answerable` holds it against the checkpoint's threshold.
    """

    answers: tuple[Answer, ...]
    no_answer_score: float
    is_answerable: bool
    checkpoint: str

    @property
    def best(self) -> Answer | None:
        """The best answer, or None when the context does not say."""
        return self.answers[0] if self.is_answerable and self.answers else None


@dataclass(frozen=True)
class Ask:
    """A question on a context, and how many answers are wanted."""

    question: str
    context: str
    top_k: int = 1


@dataclass(frozen=True)
class Candidates:
    """What a reader found before calibration says what it is worth: read once, a question can be decided many times.

    Spans that two windows saw count once; they may overlap. An empty context has none.
    """

    ask: Ask
    spans: NDArray[np.int64]  # [span, 2] start and end in characters of the context, best first
    scores: NDArray[np.float64]  # [span] start score + end score, as the model gives them
    null_score: float  # the score of "the context does not say"
    checkpoint: str

    def reading(self, calibration: Calibration) -> Reading:
        """The distinct answers with their probabilities: a softmax over all spans and the null score, then the bias."""
        logits = np.array([self.null_score, *self.scores]) / calibration.temperature
        weights = np.exp(logits - logits.max())
        for_it = weights[1:] * np.exp(calibration.bias)
        probabilities = (for_it / (for_it + weights.sum() - weights[1:])).tolist()
        no_answer_score = float(weights[0] / weights[:2].sum())  # the first span is the best
        context, answers = self.ask.context, list[Answer]()
        for span, probability in zip(self.spans.tolist(), probabilities, strict=True):
            if len(answers) == self.ask.top_k:
                break
            start, end = trimmed(context, *span)
            if start < end and all(end <= answer.start or answer.end <= start for answer in answers):
                answers.append(Answer(context[start:end], start, end, probability))
        is_answerable = bool(answers) and no_answer_score < calibration.no_answer_threshold
        return Reading(tuple(answers), no_answer_score, is_answerable, self.checkpoint)


@dataclass(frozen=True)
class EncodedAsk:
    """An ask, what is known of its context, and the windows that are to be read."""

    ask: Ask
    context: KnownContext
    windows: list[Window]


@dataclass(frozen=True)
class WindowSpans:
    """What the model finds in one window: its best spans, best first, in positions of the window."""

    window: Window
    scores: NDArray[np.float32]  # [span] -inf where there is none
    start_tokens: NDArray[np.int64]  # [span]
    end_tokens: NDArray[np.int64]  # [span] inclusive
    null_score: float


class Reader:
    """An extractive question-answering model with its tokenizer, windows and calibration, ready to read."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        windows: WindowSettings,
        calibration: Calibration | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.manifest = manifest
        self.calibration = calibration or Calibration()
        self.max_answer_tokens = windows.max_answer_tokens
        self.length_weight = windows.length_weight
        self.window_maker = WindowMaker(tokenizer, WindowSizes(windows.max_tokens, windows.stride))
        self.contexts = Contexts(self.window_maker)
        self._pad_id = tokenizer.pad_token_id or 0

    @classmethod
    def load(cls, source: str | Path | None = None, *, device: str = "auto", dtype: str = "auto") -> Self:
        """Load a checkpoint folder, a Hub model id, or, without a source, the bundled checkpoint.

        What has a manifest, here or on the Hub, is verified file by file. What has none (any other extractive model)
        loads uncalibrated. Only safetensors are loaded. Raises CheckpointMissing or CheckpointBroken.
        """
        chosen_device = choose_device(device)
        if chosen_device.type == "cpu":
            torch.set_num_threads(min(torch.get_num_threads(), cores()))
        chosen_dtype = choose_dtype(dtype, chosen_device)
        # A thread that has computed keeps its OpenMP workers for life. Where all threads together have more of them
        # than there are cores, libgomp's workers sleep between two operations and are woken for each: on two cores a
        # forward pass took almost twice as long. So loading and warming up happen in a thread that ends.
        with ThreadPoolExecutor(1, thread_name_prefix="load") as thread:
            return thread.submit(cls._load, source, chosen_device, chosen_dtype).result()

    @classmethod
    def _load(cls, source: str | Path | None, device: torch.device, dtype: torch.dtype) -> Self:
        place = BUNDLED if source is None else Path(source)
        name = "bundled" if source is None else place.name
        if not place.is_dir():
            if source is None or place.is_absolute() or str(source).startswith("."):
                raise CheckpointMissing(f"there is no checkpoint at {place}")
            name = str(source)
            place = _ours_on_hub(name) or place
        manifest: Manifest | None = None
        if place.is_dir():
            manifest = read_manifest(place)
            if manifest is None:
                refuse_pickles(place)
            else:
                verify(place, manifest)
        if manifest is None:
            log.warning("%s has no manifest: its probabilities are not calibrated, windows are the defaults", name)
        model, tokenizer = _load_parts(str(place) if place.is_dir() else name, device, dtype)
        windows = _default_windows(model, tokenizer) if manifest is None else manifest.windows
        calibration = Calibration() if manifest is None else manifest.calibration
        reader = cls(model, tokenizer, name=name, windows=windows, calibration=calibration, manifest=manifest)
        reader.warm_up()
        return reader

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def warm_up(self) -> None:
        """Read a full window, so that the first question does not pay for it.

        Raises CheckpointBroken for weights with NaN, and for a model that cannot take windows of this length.
        """
        for name, weight in self.model.named_parameters():
            if not weight.isfinite().all():
                raise CheckpointBroken(f"{name} holds values that are not finite numbers: its weights are damaged")
        window = self.encode(Ask("谁写了这本书？", "这本书是李雷写的。" * self.window_maker.sizes.max_tokens)).windows[
            0
        ]
        try:
            (spans,) = self.forward([window])
        except (IndexError, RuntimeError) as error:  # positions or token types that it lacks, or no memory
            reason = str(error).strip().split("\n")[0]
            raise CheckpointBroken(f"it cannot read a window of {len(window)} tokens: {reason}") from error
        if not (np.isfinite(spans.null_score) and np.isfinite(spans.scores[0])):
            raise CheckpointBroken("it computes scores that are not numbers: its weights are damaged")

    def read(self, question: str, context: str, *, top_k: int = 1) -> Reading:
        """The `top_k` best answers to a question; raises EmptyQuestion for one without characters."""
        (reading,) = self.read_many([Ask(question, context, top_k)])
        return reading

    def read_many(self, asks: Sequence[Ask], *, progress: bool = False) -> list[Reading]:
        """One reading for each ask, in their order; with a progress bar where that is worth it.

        Asks are read in groups of ASKS_AT_ONCE, those with contexts of like length together.
        """
        return [found.reading(self.calibration) for found in self.find_many(asks, progress=progress)]

    def find_many(self, asks: Sequence[Ask], *, progress: bool = False) -> list[Candidates]:
        """As `read_many`, before calibration."""
        order = sorted(range(len(asks)), key=lambda index: len(asks[index].context), reverse=True)
        found: dict[int, Candidates] = {}
        with tqdm(total=len(asks), desc="reading", unit="question", disable=not progress) as bar:
            for at in range(0, len(order), ASKS_AT_ONCE):
                group = order[at : at + ASKS_AT_ONCE]
                encoded = [self.encode(asks[index]) for index in group]
                spans = iter(self.forward([window for item in encoded for window in item.windows]))
                for index, item in zip(group, encoded, strict=True):
                    found[index] = self.candidates(item, list(islice(spans, len(item.windows))))
                bar.update(len(group))
        return [found[index] for index in range(len(asks))]

    def encode(self, ask: Ask) -> EncodedAsk:
        """Text → windows, the question in the script of the context."""
        if not ask.question.strip():
            raise EmptyQuestion("the question is empty")
        context = self.contexts.known(ask.context)
        return EncodedAsk(ask, context, self.contexts.windows(ask.question, context))

    @torch.inference_mode()
    def forward(self, windows: Sequence[Window]) -> list[WindowSpans]:
        """Windows, of one ask or of many → the best spans of each, in their order.

        Windows of like length share a forward pass. Nothing waits for the device before all passes are under way, and
        only the spans leave it.
        """
        groups = alike([len(window) for window in windows])
        on_device = [self._forward_group([windows[place] for place in group]) for group in groups]
        found: dict[int, WindowSpans] = {}
        for group, spans in zip(groups, on_device, strict=True):
            columns = (spans.scores, spans.start_tokens, spans.end_tokens, spans.null_scores)
            for place, *row in zip(group, *(column.cpu().numpy() for column in columns), strict=True):
                found[place] = WindowSpans(windows[place], *row)
        return [found[place] for place in range(len(windows))]

    def _forward_group(self, windows: Sequence[Window]) -> TokenSpans:
        lengths = [len(window) for window in windows]
        shape = (len(windows), max(lengths))
        input_ids = torch.full(shape, self._pad_id, dtype=torch.long)
        token_type_ids = torch.zeros(shape, dtype=torch.long)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        is_context = torch.zeros(shape, dtype=torch.bool)
        for row, window in enumerate(windows):
            input_ids[row, : len(window)] = torch.from_numpy(window.input_ids)
            token_type_ids[row, : len(window)] = torch.from_numpy(window.token_type_ids)
            attention_mask[row, : len(window)] = 1
            is_context[row, window.context_at : window.context_at + window.count] = True
        output = self.model(
            input_ids=self._sent(input_ids),
            token_type_ids=self._sent(token_type_ids),
            # Without padding there is nothing to mask, and attention without a mask is faster.
            attention_mask=None if min(lengths) == max(lengths) else self._sent(attention_mask),
        )
        return best_spans(
            output.start_logits,
            output.end_logits,
            self._sent(is_context),
            max_answer_tokens=self.max_answer_tokens,
            length_weight=self.length_weight,
            count=WINDOW_SPANS,
        )

    def _sent(self, tensor: Tensor) -> Tensor:
        """`tensor` on the model's device; a GPU takes it while the next one is made."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def decode(self, encoded: EncodedAsk, spans: Sequence[WindowSpans]) -> Reading:
        """What was found in an ask's windows → answers in the characters of the context."""
        return self.candidates(encoded, spans).reading(self.calibration)

    def candidates(self, encoded: EncodedAsk, spans: Sequence[WindowSpans]) -> Candidates:
        """What was found in an ask's windows → spans in the characters of the context, not yet calibrated.

        Scores of different windows are compared as they are: a softmax within each would make the window without the
        answer as sure as the one that has it. A context does not say only if none of its windows says, so its null
        score is their minimum (Devlin et al. 2019, SQuAD 2.0).
        """
        if not spans:  # null score of any size: with nothing beside it, it is certain
            return Candidates(encoded.ask, np.zeros((0, 2), np.int64), np.zeros(0), 0.0, self.name)
        tokens = encoded.context.tokens
        scores = np.concatenate([one.scores + one.window.prior for one in spans]).astype(np.float64)
        shifts = np.concatenate([np.full(len(one.scores), one.window.first - one.window.context_at) for one in spans])
        first, last = (
            np.concatenate(columns) + shifts
            for columns in ([one.start_tokens for one in spans], [one.end_tokens for one in spans])
        )
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > -np.inf]
        places = np.stack([tokens.starts[first[order]], tokens.ends[last[order]]], 1).astype(np.int64)
        _, once = np.unique(places, axis=0, return_index=True)
        once = np.sort(once)[:CANDIDATE_SPANS]
        null_score = min(float(one.null_score) for one in spans)
        return Candidates(encoded.ask, places[once], scores[order][once], null_score, self.name)


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Places of windows that go through the model together: of like length, and FORWARD_TOKENS at most."""
    groups: list[list[int]] = []
    longest = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        fits = groups and lengths[place] >= ALIKE * longest and (len(groups[-1]) + 1) * longest <= FORWARD_TOKENS
        if fits:
            groups[-1].append(place)
        else:
            groups.append([place])
            longest = lengths[place]
    return groups


def trimmed(context: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space, loose punctuation and unpaired quotes at its edges, and never half a character.

    A character as people see it may be several of Python's: a letter with its accent, an emoji of a family.
    """
    while 0 < start < end and _continues(context, start):
        start -= 1
    while end < len(context) and _continues(context, end):
        end += 1
    unpaired = _unpaired(context, start, end)
    while start < end:
        second, last = start + 1, end - 1
        while second < end and _continues(context, second):
            second += 1
        while last > start and _continues(context, last):
            last -= 1
        first_is_loose = second == start + 1 and (start in unpaired or context[start] in _NOT_FIRST)
        last_is_loose = last == end - 1 and (last in unpaired or context[last] in _NOT_LAST)
        if first_is_loose or context[start:second].isspace():
            start = second
        elif last_is_loose or context[last:end].isspace():
            end = last
        else:
            break
    return start, end


def _unpaired(context: str, start: int, end: int) -> set[int]:
    """Where quotes and brackets without their partner stand between `start` and `end`."""
    unpaired = set[int]()
    waiting_for = defaultdict[str, list[int]](list)
    for position in range(start, end):
        character = context[position]
        if character in _CLOSED_BY:
            waiting_for[_CLOSED_BY[character]].append(position)
        elif character in _CLOSING:
            if waiting_for[character]:
                waiting_for[character].pop()
            else:
                unpaired.add(position)
    return unpaired.union(*waiting_for.values())


def _continues(context: str, position: int) -> bool:
    """Whether the characters before and at `position` are one to the eye."""
    following = context[position]
    return (
        unicodedata.category(following) in {"Mn", "Mc", "Me"}
        or "\u200d" in {following, context[position - 1]}  # the joiner of emoji
        or following in "\uff9e\uff9f"  # the voicing marks of half-width kana
        or "\U0001f3fb" <= following <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= following <= "\U000e007f"  # tags: flags of regions
        or (following == "\n" and context[position - 1] == "\r")
        or _halves_flag(context, position)
    )


def _halves_flag(context: str, position: int) -> bool:
    """Whether `position` stands between the two regional indicators of a country's flag."""
    if context[position] not in _REGIONAL_INDICATORS:
        return False
    before = context[:position]
    return (len(before) - len(before.rstrip(_REGIONAL_INDICATORS))) % 2 == 1


def choose_device(device: str) -> torch.device:
    """`auto`: a CUDA GPU, then Apple's, then the CPU; anything else as torch names it."""
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:  # AssertionError: this torch was built without it
            raise CheckpointError(f"{device!r} is no device here; use auto, cpu, cuda, cuda:1 or mps") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware is fast in it, float16 on other GPUs, else float32."""
    if dtype != "auto":
        named = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
        if dtype not in named:
            raise CheckpointError(f"{dtype!r} is no dtype; use auto or one of {', '.join(named)}")
        return named[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if cpu_is_faster_in_bfloat16() else torch.float32
    return torch.float16


@cache
def cpu_is_faster_in_bfloat16() -> bool:
    """Whether this CPU multiplies matrices faster in bfloat16 than in float32, by a quarter or more: measured, once.

    That it has the instructions does not say so: where a virtual machine hides AMX and leaves AVX512-BF16, as on a Xeon
    of the fifth generation, they can take twice as long.
    """
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    with ThreadPoolExecutor(1, thread_name_prefix="measure") as thread:  # it ends, and its OpenMP workers with it
        seconds = thread.submit(_product_seconds).result()
    log.info("a matrix product takes %.1f ms in float32, %.1f ms in bfloat16", *(1000 * one for one in seconds))
    return 1.25 * seconds[1] < seconds[0]


def _product_seconds() -> tuple[float, float]:
    """The best of several linear products of a small BERT's size, in float32 and in bfloat16."""
    best = [math.inf, math.inf]
    tokens, weights = torch.randn(512, 384), torch.randn(1536, 384)
    pairs = [(tokens.to(dtype), weights.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
    with torch.inference_mode():
        for _ in range(8):
            for place, (some, others) in enumerate(pairs):
                began = perf_counter()
                linear(some, others)
                best[place] = min(best[place], perf_counter() - began)
    return best[0], best[1]


def _ours_on_hub(name: str) -> Path | None:
    """The folder of a checkpoint that has a manifest on the Hub or in its local cache, with every file that this names.

    None where there is no manifest, or none in the cache and no network: what there is, transformers finds.
    """
    try:
        manifest = read_manifest(Path(hf_hub_download(name, MANIFEST)).parent)
        if manifest is None:
            return None
        return Path(snapshot_download(name, allow_patterns=[MANIFEST, *manifest.files]))
    except EntryNotFoundError:
        return None
    except CheckpointError:
        raise
    except Exception as error:  # the Hub's client and its network raise whatever they like
        raise _missing(name, error) from error


def _load_parts(
    source: str, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = Path(source)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if config.is_encoder_decoder or type(config) not in AutoModelForQuestionAnswering._model_mapping:
            raise CheckpointBroken(f"{config.model_type} is not an extractive question-answering model")
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        vocabularies = tokenizer.vocab_files_names.values()
        if folder.is_dir() and not any((folder / name).is_file() for name in vocabularies):
            raise CheckpointBroken(f"it has no tokenizer: none of {', '.join(vocabularies)} is there")
        with _no_progress_bars():
            model, loading = AutoModelForQuestionAnswering.from_pretrained(
                source,
                dtype=dtype,
                attn_implementation=fastest(config, on_cpu=device.type == "cpu"),
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged folder makes of transformers, the answer is the same
        if not folder.is_dir():
            raise _missing(source, error) from error
        reason = str(error).strip().split("\n")[0]
        raise CheckpointBroken(f"it cannot be loaded: {type(error).__name__}: {reason}") from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise CheckpointBroken(
            f"it is no question-answering checkpoint: {missing[0]} and {len(missing) - 1} more weights are missing"
            if len(missing) > 1
            else f"it is no question-answering checkpoint: {missing[0]} is missing"
        )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise CheckpointBroken("its tokenizer has more tokens than its model has embeddings")
    return model.to(device).eval(), tokenizer


def _missing(name: str, error: Exception) -> CheckpointMissing:
    reason = str(error).strip().split("\n")[0]
    return CheckpointMissing(f"{name} is neither a folder nor a model that the Hub gives: {reason}")


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers draws one for every model it loads; in a bot's log that is noise."""
    were_shown = is_progress_bar_enabled()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if were_shown:
            enable_progress_bar()  # type: ignore[no-untyped-call]


def _default_windows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> WindowSettings:
    """For a checkpoint that does not say: 512 tokens, or what its positions allow."""
    positions = getattr(model.config, "max_position_embeddings", 512)
    max_tokens = min(512, tokenizer.model_max_length, positions)
    return WindowSettings(max_tokens=max_tokens, stride=max_tokens // 4)
