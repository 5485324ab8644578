"""A reader over labelled examples: EM and F1, how well it knows when to be silent, and what its scores are worth."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from qa_engine import Ask, Reading
from trainer.metrics import Score, average, score
from trainer.squad import Example

RELIABILITY_BINS = 15
COVERAGE_POINTS = 20
_QUESTION_WORDS = {  # simplified and traditional; the first type that a question matches is its own
    "why": "[为為]([什甚][么麼]|何|啥)|何以|何故|[缘緣]何|怎[么麼][会會]"
    "|[什甚][么麼](原因|理由|[缘緣]故)|(原因|理由)[是为為]?([什甚][么麼]|何)",
    "who": "[谁誰]|何人|[什甚][么麼]人|哪(一|[几幾])?(位|[个個]人|些人)",
    "when": "何([时時年月日]|世[纪紀])|[什甚][么麼]([时時][候间間期]|年|日期|朝代|世[纪紀])"
    "|哪(一|[个個]|些)?([年月日天朝]|世[纪紀]|[时時][候间間期])|[几幾]([月日号號点點]|[时時])",
    "where": "哪[里裡裏儿兒]|何[处處地]|在哪(?![一个個些])|[什甚][么麼](地|位置|[国國]家|城市)"
    "|哪(一|[个個座些]|[几幾][个個])?([国國地省市县縣城州洲区區村岛島处處])",
    "how_many": "多少|[几幾](?![乎何])|多([高大久重深快厚]|[长長远遠宽寬广廣])",
    "how": "怎[么麼样樣]|如何",
    "which": "哪|何([种種者方家校派族]|[项項类類])",
    "what": "[什甚][么麼]|啥|何",
    "yes_no": "[吗嗎](?!啡)|是否|是不是|有[没沒]有|[能可会會]否|能不能|[会會]不[会會]",
}
_ANSWER_LENGTHS = {"1-5": 5, "6-10": 10, "11-20": 20}  # in characters, up to and including


@dataclass(frozen=True)
class Group:
    """Questions of one kind; EM and F1 in per cent."""

    questions: int
    em: float
    f1: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Questions whose best answers have like scores: what they were said to be worth, and what they were."""

    questions: int
    score: float  # mean
    precision: float  # share of best answers that match exactly


@dataclass(frozen=True)
class CoveragePoint:
    """If only the best answers from `score` on were given: the share of questions answered, and of these, right."""

    coverage: float
    precision: float
    score: float


@dataclass(frozen=True)
class Evaluation:
    """EM and F1 in per cent, over all questions.

    Where every question has an answer, the best span counts, however unsure. Where some have none, the reader may
    abstain: that is the right answer to those and the wrong one to the others (as in SQuAD 2.0).
    Everything about scores looks at each question's best span, abstained or not; for a question without an answer it
    is wrong.
    """

    questions: int
    em: float
    f1: float
    answerable_em: float | None
    answerable_f1: float | None
    kept: float | None
    """Share in per cent of the answerable questions on which the reader does not abstain."""
    refused: float | None
    """Share in per cent of the unanswerable questions on which it does."""
    auroc: float | None
    """How well the no-answer score tells unanswerable questions from answerable ones: 0.5 not at all, 1 always."""
    ece: float | None
    """Expected calibration error of the best span's score against its exact match, from 0 to 1: the mean distance of
    the two over RELIABILITY_BINS bins of equally many questions (Guo et al. 2017; equal mass as in Nguyen and
    O'Connor 2015)."""
    aurc: float | None
    """Area under risk against coverage, from 0 to 1, less is better: the mean share of wrong ones among the k surest
    best spans, over all k (Geifman and El-Yaniv 2017)."""
    reliability: tuple[ReliabilityBin, ...]
    coverage: tuple[CoveragePoint, ...]
    by_question_type: Mapping[str, Group]
    by_answer_length: Mapping[str, Group]
    """Of the answerable questions, by the characters of their shortest reference."""

    def figures(self) -> dict[str, float]:
        """The single figures that there are, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int | float)}

    def report(self) -> dict[str, object]:
        """Everything, as JSON takes it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def asks_of(examples: Sequence[Example]) -> list[Ask]:
    """What a reader is asked for these examples."""
    return [Ask(example.question, example.context) for example in examples]


def evaluate(examples: Sequence[Example], readings: Sequence[Reading]) -> Evaluation:
    """What the readings of the examples are worth."""
    may_abstain = any(example.is_impossible for example in examples)
    pairs = list(zip(examples, readings, strict=True))
    scores = [score(_text(reading, may_abstain), example.answers) for example, reading in pairs]
    on_answerable = [one for one, example in zip(scores, examples, strict=True) if not example.is_impossible]
    of_answerable = [reading for example, reading in pairs if not example.is_impossible]
    of_impossible = [reading for example, reading in pairs if example.is_impossible]
    overall, answerable = average(scores), average(on_answerable) if of_answerable and of_impossible else None
    best = [(reading.answers[0], example) for example, reading in pairs if reading.answers]
    best_scores = np.array([answer.score for answer, _ in best])
    is_right = np.array([score(answer.text, example.answers).em for answer, example in best])
    precisions = _precisions(best_scores, is_right)
    reliability = _reliability(best_scores, is_right)
    return Evaluation(
        questions=len(examples),
        em=100 * overall.em,
        f1=100 * overall.f1,
        answerable_em=100 * answerable.em if answerable else None,
        answerable_f1=100 * answerable.f1 if answerable else None,
        kept=100 - refused_share(of_answerable) if of_answerable else None,
        refused=refused_share(of_impossible) if of_impossible else None,
        auroc=separation(of_answerable, of_impossible) if answerable else None,
        ece=sum(one.questions * abs(one.score - one.precision) for one in reliability) / len(best) if best else None,
        aurc=float((1 - precisions).mean()) if best else None,
        reliability=reliability,
        coverage=_coverage(np.sort(best_scores)[::-1], precisions, len(examples)),
        by_question_type=_grouped(examples, scores, lambda example: question_type(example.question)),
        by_answer_length=_grouped(examples, scores, _answer_length),
    )


def refused_share(readings: Sequence[Reading]) -> float:
    """Share in per cent of at least one reading that abstains."""
    return 100 * sum(reading.best is None for reading in readings) / len(readings)


def separation(answerable: Sequence[Reading], impossible: Sequence[Reading]) -> float:
    """The area under the ROC curve of the no-answer score; at least one reading of each kind."""
    is_impossible = [False] * len(answerable) + [True] * len(impossible)
    return float(roc_auc_score(is_impossible, [reading.no_answer_score for reading in [*answerable, *impossible]]))


def question_type(question: str) -> str:
    """who, when, where, how_many, why, how, which, what or yes_no, by its question word; else other."""
    return next((name for name, words in _QUESTION_WORDS.items() if re.search(words, question)), "other")


def _answer_length(example: Example) -> str | None:
    if example.is_impossible:
        return None
    length = min(map(len, example.answers))
    return next((name for name, longest in _ANSWER_LENGTHS.items() if length <= longest), "21-")


def _grouped(
    examples: Sequence[Example], scores: Sequence[Score], kind: Callable[[Example], str | None]
) -> dict[str, Group]:
    groups = defaultdict[str, list[Score]](list)
    for example, one in zip(examples, scores, strict=True):
        name = kind(example)
        if name is not None:
            groups[name].append(one)
    order = [*_QUESTION_WORDS, "other", *_ANSWER_LENGTHS, "21-"]
    means = {name: average(groups[name]) for name in sorted(groups, key=order.index)}
    return {name: Group(len(groups[name]), 100 * mean.em, 100 * mean.f1) for name, mean in means.items()}


def _reliability(scores: NDArray[np.float64], is_right: NDArray[np.float64]) -> tuple[ReliabilityBin, ...]:
    """RELIABILITY_BINS bins of equally many questions, or one bin for each where there are fewer."""
    order = scores.argsort(kind="stable")
    bins = np.array_split(order, RELIABILITY_BINS) if len(order) else []
    return tuple(
        ReliabilityBin(len(one), float(scores[one].mean()), float(is_right[one].mean())) for one in bins if len(one)
    )


def _precisions(scores: NDArray[np.float64], is_right: NDArray[np.float64]) -> NDArray[np.float64]:
    """At k: the share of right ones among the k + 1 with the highest scores."""
    surest_first = (-scores).argsort(kind="stable")
    precisions: NDArray[np.float64] = is_right[surest_first].cumsum() / np.arange(1, len(scores) + 1)
    return precisions


def _coverage(
    scores: NDArray[np.float64], precisions: NDArray[np.float64], questions: int
) -> tuple[CoveragePoint, ...]:
    """Points at equal distances; both arrays are sorted by falling score."""
    counts = np.unique(np.linspace(0, len(scores), COVERAGE_POINTS + 1).round().astype(int))[1:]
    return tuple(CoveragePoint(int(k) / questions, float(precisions[k - 1]), float(scores[k - 1])) for k in counts)


def _text(reading: Reading, may_abstain: bool) -> str:
    answer = reading.best if may_abstain else next(iter(reading.answers), None)
    return answer.text if answer else ""
