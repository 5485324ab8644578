"""A reader over labelled examples: EM and F1, and how well it knows when to be silent."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from qa_engine import Ask, Reading
from trainer.metrics import average, score
from trainer.squad import Example


@dataclass(frozen=True)
class Evaluation:
    """EM and F1 in per cent, over all questions.

    Where every question has an answer, the best span counts, however unsure. Where some have none, the reader may
    abstain: that is the right answer to those and the wrong one to the others (as in SQuAD 2.0).
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

    def figures(self) -> dict[str, float]:
        """What there is, by name."""
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
    is_kept = [reading.best is not None for example, reading in pairs if not example.is_impossible]
    is_refused = [reading.best is None for example, reading in pairs if example.is_impossible]
    overall, answerable = average(scores), average(on_answerable) if is_kept and is_refused else None
    return Evaluation(
        questions=len(examples),
        em=100 * overall.em,
        f1=100 * overall.f1,
        answerable_em=100 * answerable.em if answerable else None,
        answerable_f1=100 * answerable.f1 if answerable else None,
        kept=100 * sum(is_kept) / len(is_kept) if is_kept else None,
        refused=100 * sum(is_refused) / len(is_refused) if is_refused else None,
    )


def _text(reading: Reading, may_abstain: bool) -> str:
    answer = reading.best if may_abstain else next(iter(reading.answers), None)
    return answer.text if answer else ""
