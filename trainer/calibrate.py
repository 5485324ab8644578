"""Calibration: temperature and bias that make scores probabilities, and from which one on silence is the answer.

They are fitted on training data that was held back, never on what a checkpoint is measured on. Knows readings, not
models.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qa_engine.checkpoints import Calibration
from qa_engine.reader import Candidates, trimmed
from trainer.evaluate import evaluate, refused_share
from trainer.metrics import score
from trainer.squad import Example

KEPT_SHARE = 0.95
FEWEST_QUESTIONS = 50
"""From fewer held-back questions nothing is fitted: with 50, one question moves a share by 2 points."""
MOST_PAIRS = 500
_TEMPERATURES = np.geomspace(0.1, 10, 201)  # 2.3 % from one to the next
_BIASES = np.linspace(-3, 3, 121)
_DRAWS = 20


@dataclass(frozen=True)
class Fit:
    """A calibration and what it does to the questions that it was fitted on."""

    calibration: Calibration
    is_scale_fitted: bool
    is_threshold_fitted: bool
    questions: int
    impossible: int
    """Of the questions, those without an answer."""
    pairs: int
    """Off-topic pairs beside the questions."""
    ece: tuple[float, float] | None
    """Of the questions before and after, where temperature and bias were fitted."""
    kept: float | None
    """In per cent of the answerable questions, at the threshold."""
    refused: float | None
    """In per cent of the unanswerable questions and the pairs, at the threshold."""

    def __str__(self) -> str:
        threshold = self.calibration.no_answer_threshold
        scale = f"temperature {self.calibration.temperature:.3g} and bias {self.calibration.bias:.3g}"
        if not self.is_scale_fitted and not self.is_threshold_fitted:
            return (
                f"not calibrated: it takes {FEWEST_QUESTIONS} held-back questions with an answer, found and not found, "
                f"and as many without, and there are {self.questions - self.impossible} with one; {scale}, "
                f"no-answer threshold {threshold:.3g} stay the base's. "
                "A larger --hold_back gives more questions"
            )
        parts = [
            f"calibrated on {self.questions} held-back questions, {self.impossible} of them without an answer, and "
            f"{self.pairs} off-topic pairs"
        ]
        if self.ece:
            parts.append(f"{scale} take their ECE from {self.ece[0]:.3f} to {self.ece[1]:.3f}")
        if self.kept is not None and self.refused is not None:
            parts.append(
                f"no-answer threshold {threshold:.3g} keeps {self.kept:.1f} % of the questions with an answer and "
                f"refuses {self.refused:.1f} % of those without"
            )
        return "; ".join(parts)


def fit(
    examples: Sequence[Example], found: Sequence[Candidates], pairs: Sequence[Candidates], base: Calibration
) -> Fit:
    """Fit on what a reader found for held-back examples, and for off-topic pairs made of them.

    What too few questions cannot tell stays as in `base`.
    """
    of_answerable = [one for one, example in zip(found, examples, strict=True) if not example.is_impossible]
    of_impossible = [one for one, example in zip(found, examples, strict=True) if example.is_impossible]
    silent = [*of_impossible, *pairs]
    is_enough = len(of_answerable) >= FEWEST_QUESTIONS
    scale = fit_scale(examples, found) if is_enough else None
    fitted = base if scale is None else base.model_copy(update={"temperature": scale[0], "bias": scale[1]})
    threshold = None
    if is_enough and len(silent) >= FEWEST_QUESTIONS:
        threshold = fit_threshold(*(_no_answer_scores(some, fitted) for some in (of_answerable, silent)))
        fitted = fitted.model_copy(update={"no_answer_threshold": threshold})
    ece = None
    if scale is not None:
        before, after = (evaluate(examples, [one.reading(some) for one in found]).ece for some in (base, fitted))
        ece = (before, after) if before is not None and after is not None else None
    return Fit(
        calibration=fitted,
        is_scale_fitted=scale is not None,
        is_threshold_fitted=threshold is not None,
        questions=len(examples),
        impossible=len(of_impossible),
        pairs=len(pairs),
        ece=ece,
        kept=100 - refused_share([one.reading(fitted) for one in of_answerable]) if threshold is not None else None,
        refused=refused_share([one.reading(fitted) for one in silent]) if threshold is not None else None,
    )


def fit_scale(examples: Sequence[Example], found: Sequence[Candidates]) -> tuple[float, float] | None:
    """Temperature and bias under which the best span's probability tells best whether it matches exactly.

    That is the number that people are shown, so its log loss is what is minimized: temperature scaling as in Guo et
    al. 2017 (On Calibration of Modern Neural Networks), with "right" and "wrong" for classes, and Platt's bias, because
    the best of many spans is right less often than any temperature says. None where all best spans are right or all are
    wrong: any temperature could be sharper still.
    """
    answered = [(example, one) for example, one in zip(examples, found, strict=True) if len(one.scores)]
    is_right = np.array([_is_right(example, one) for example, one in answered], bool)
    if is_right.all() or not is_right.any():
        return None
    widest = max(len(one.scores) for _, one in answered)
    logits = np.full((len(answered), widest + 1), -np.inf)  # [question, best span | null | the other spans]
    for row, (_, one) in enumerate(answered):
        logits[row, 0], logits[row, 1] = one.scores[0], one.null_score
        logits[row, 2 : len(one.scores) + 1] = one.scores[1:]
    losses = np.stack([_log_losses(logits / temperature, is_right) for temperature in _TEMPERATURES])
    temperature, bias = np.unravel_index(losses.argmin(), losses.shape)
    return float(_TEMPERATURES[temperature]), float(_BIASES[bias])


def _log_losses(logits: NDArray[np.float64], is_right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean log loss with each of the biases."""
    odds = logits[:, 0] - np.logaddexp.reduce(logits[:, 1:], axis=1) + _BIASES[:, None]  # [bias, question] logarithms
    losses: NDArray[np.float64] = np.logaddexp(0, np.where(is_right, -odds, odds)).mean(axis=1)
    return losses


def _is_right(example: Example, found: Candidates) -> bool:
    start, end = trimmed(example.context, *found.spans[0].tolist())
    return score(example.context[start:end], example.answers).em == 1


def fit_threshold(answerable: NDArray[np.float64], impossible: NDArray[np.float64]) -> float:
    """The threshold for the no-answer scores [question] of both kinds.

    Of those that keep at least KEPT_SHARE of the answerable questions, the one that refuses the most of the others,
    and of several that refuse as many the one that keeps the most. It lies halfway between two scores.
    """
    scores = np.unique(np.concatenate([[0.0, 1.0], answerable, impossible]))
    thresholds = np.append((scores[:-1] + scores[1:]) / 2, 1.0)
    kept = np.searchsorted(np.sort(answerable), thresholds, side="left") / len(answerable)
    refused = 1 - np.searchsorted(np.sort(impossible), thresholds, side="left") / len(impossible)
    allowed = kept >= min(KEPT_SHARE, kept.max())  # a score of 1 is refused by every threshold
    return float(max(zip(refused[allowed], kept[allowed], thresholds[allowed], strict=True))[2])


def _no_answer_scores(found: Sequence[Candidates], calibration: Calibration) -> NDArray[np.float64]:
    return np.array([one.reading(calibration).no_answer_score for one in found])


def off_topic(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` answerable questions, each with a context on which it is not asked and in which no answer to it stands.

    Drawn at random, so most contexts are of another topic altogether. A pair is not made twice; where there are not so
    many, the list is shorter.
    """
    draw = random.Random(seed)
    contexts = sorted({example.context for example in examples})
    asked_on, answers_to = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for example in examples:  # 门票多少钱 may be asked on many contexts
        asked_on[example.question].add(example.context)
        answers_to[example.question].update(example.answers)
    questions = [example for example in examples if not example.is_impossible]
    draw.shuffle(questions)
    made: dict[tuple[str, str], Example] = {}
    while len(made) < count:
        before = len(made)
        for example in questions:
            if len(made) == count:
                break
            for context in draw.sample(contexts, min(_DRAWS, len(contexts))):
                is_new = context not in asked_on[example.question] and (example.question, context) not in made
                if is_new and not any(answer in context for answer in answers_to[example.question]):
                    made[example.question, context] = replace(
                        example, id=f"{example.id}/off-topic", context=context, answers=(), span=None
                    )
                    break
        if len(made) == before:
            break
    return list(made.values())
