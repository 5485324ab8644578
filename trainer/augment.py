"""More to learn from the same examples: rewritten questions, disturbed contexts, and questions without an answer.

Works on characters, before anything is tokenized. Every draw comes from the `Random` or the seed that is given, so that
a training can be repeated. An answer is never altered but for its script, and always moves with its context.
"""

import random
import re
import shlex
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import bm25s

from qa_engine.errors import DataError
from qa_engine.scripts import Script, converted, script_of
from trainer.squad import Example

NOISE_RATE = 0.05  # of the characters outside the answer
_ALIKE = tuple(
    tuple(words.split())
    for words in (
        "什么时候 何时 什么时间",
        "什麼時候 何時 甚麼時候",
        "哪里 何处 哪儿 什么地方",
        "哪裡 何處 哪裏 什麼地方",
        "哪一年 何年 哪年",
        "为什么 为何 为啥",
        "為什麼 為何 為甚麼",
        "怎么 如何 怎样",
        "怎麼 如何 怎樣",
        "有哪些 包括哪些",
        "叫什么 叫做什么",
        "叫什麼 叫做什麼",
        "是谁 是哪位 是什么人",
        "是誰 是哪位 是什麼人",
    )
)
_WORDS_OF = {word: words for words in _ALIKE for word in words}
_QUESTION_WORD = re.compile("|".join(sorted(_WORDS_OF, key=len, reverse=True)))
_POLITE = re.compile(r"^(请问|請問|我想知道)[，,]?")
_ENDING = re.compile(r"[呢呀啊]?[？?]?$")
_SENTENCE = re.compile(r"[^。！？!?\n]*[。！？!?\n]+[」』”’）)]*|[^。！？!?\n]+$")
_NEAR_CONTEXTS = 8  # the nearest ones by BM25 among which an unanswerable pair's context is drawn
_INDEXED = 20_000  # contexts at most
_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_NARROW = {wide: code for code, wide in _WIDE.items()}


@dataclass(frozen=True)
class Augmentation:
    """How probable each change is, an example and an epoch. The defaults change nothing."""

    paraphrase: float = 0.0
    noise: float = 0.0
    shuffle: float = 0.0
    other_script: float = 0.0

    def __bool__(self) -> bool:
        return any((self.paraphrase, self.noise, self.shuffle, self.other_script))

    def __call__(self, example: Example, draw: random.Random) -> Example:
        """The example, changed or not, as `draw` has it."""
        if draw.random() < self.paraphrase:
            example = replace(example, question=paraphrased(example.question, draw))
        if draw.random() < self.shuffle:
            example = shuffled(example, draw)
        if draw.random() < self.noise:
            example = disturbed(example, draw)
        if draw.random() < self.other_script:
            example = in_other_script(example)
        return example


def paraphrased(question: str, draw: random.Random) -> str:
    """The question as somebody else might type it: another question word, with or without courtesy, another width."""
    changed = _QUESTION_WORD.sub(lambda found: draw.choice(_WORDS_OF[found[0]]), question, count=1)
    changed = _POLITE.sub("", changed) if draw.random() < 0.5 else changed
    if draw.random() < 0.1:
        changed = draw.choice(("请问", "請問", "我想知道")) + changed
    changed = _ENDING.sub(lambda _: draw.choice(("？", "?", "", "呢？")), changed, count=1)
    if draw.random() < 0.2:
        changed = changed.translate(draw.choice((_WIDE, _NARROW)))
    return changed if changed.strip() else question


def shuffled(example: Example, draw: random.Random) -> Example:
    """The context's sentences in another order; those that the answer touches stay together."""
    start, end = _answer(example)
    blocks: list[tuple[int, int]] = []
    for first, last in _sentences(example.context):
        if blocks and blocks[-1][1] > start and first < end:
            blocks[-1] = (blocks[-1][0], last)
        else:
            blocks.append((first, last))
    draw.shuffle(blocks)
    context, moved = "", start
    for first, last in blocks:
        if first <= start < last:
            moved = len(context) + start - first
        context += example.context[first:last]
    return _with_context(example, context, moved)


def disturbed(example: Example, draw: random.Random) -> Example:
    """NOISE_RATE of the characters outside the answer replaced by others of the context, doubled or left out."""
    start, end = _answer(example)
    if not example.context:
        return example
    before = _noisy(example.context[:start], example.context, draw)
    after = _noisy(example.context[end:], example.context, draw)
    return _with_context(example, before + example.context[start:end] + after, len(before))


def in_other_script(example: Example) -> Example:
    """A Simplified example in Traditional characters or the other way round: a reader learns one script from both.

    One that OpenCC would make longer or shorter, or whose script does not show, stays as it is.
    """
    script = script_of(example.context)
    if script is None:
        return example
    other = Script.TRADITIONAL if script is Script.SIMPLIFIED else Script.SIMPLIFIED
    context = converted(example.context, other)
    if len(context) != len(example.context):
        return example
    start, end = _answer(example)
    return replace(
        example,
        question=converted(example.question, other),
        context=context,
        answers=tuple(converted(answer, other) for answer in example.answers),
        span=replace(example.span, text=context[start:end]) if example.span else None,
    )


def unanswerable(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` questions (fewer where there are not so many) on contexts that do not answer them.

    In turn: the question's own context without the sentences that hold its answer, and another context near to the
    question by BM25 over character bigrams, in which none of its answers stands.
    """
    draw = random.Random(f"{seed}/unanswerable")
    answerable = [example for example in examples if example.span is not None]
    chosen = draw.sample(answerable, min(count, len(answerable)))
    near = _near_contexts(examples, chosen[1::2], draw)
    pairs = []
    for index, example in enumerate(chosen):
        context = near.get(example.id) if index % 2 else _without_answer(example)
        if context:
            pairs.append(Example(f"{example.id}/unanswerable", example.question, context, (), None))
    return pairs


def thinned(examples: Sequence[Example], characters: int, seed: int) -> list[Example]:
    """The examples without most of those with long answers: one of n × `characters` stays with a probability of 1/n.

    Annotators differ in how much they mark. CMRC 2018's training answers have 19 characters on average, those of its
    development set 11: a reader that learned from the former as they are answers with too many words.
    """
    draw = random.Random(f"{seed}/thinned")
    chances = [(example, draw.random()) for example in examples]
    return [example for example, chance in chances if not example.span or chance * len(example.span.text) < characters]


def rewritten(examples: Sequence[Example], command: str, kept: Path) -> list[Example]:
    """The examples again, their questions rewritten by a program of the user's (back-translation, say).

    The program is run once, reads a question a line from stdin and writes as many lines to stdout. They are kept in a
    file, and taken from there where it is: a program that draws its words would give a resumed training others, and
    every process of one. Raises DataError where the program does not keep to this.
    """
    if not kept.exists():
        output = _output([" ".join(example.question.split()) for example in examples], command)
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".unfinished")
        unfinished.write_text(output, encoding="utf-8")
        unfinished.replace(kept)
    questions = kept.read_text(encoding="utf-8").splitlines()
    if len(questions) != len(examples):
        raise DataError(f"{command!r} wrote {len(questions)} lines for {len(examples)} questions; expected as many")
    return [
        replace(example, id=f"{example.id}/rewritten", question=question)
        for example, question in zip(examples, questions, strict=True)
        if question.strip()
    ]


def _output(lines: Sequence[str], command: str) -> str:
    """What the user's program makes of the lines."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own program
            shlex.split(command), input="\n".join(lines) + "\n", capture_output=True, encoding="utf-8"
        )
    except OSError as error:
        raise DataError(f"{command!r} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise DataError(f"{command!r} failed with exit status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _answer(example: Example) -> tuple[int, int]:
    return (example.span.start, example.span.end) if example.span else (0, 0)


def _with_context(example: Example, context: str, start: int) -> Example:
    span = replace(example.span, start=start) if example.span else None
    return replace(example, context=context, span=span)


def _sentences(context: str) -> Iterator[tuple[int, int]]:
    """Spans that together are the whole context."""
    ends = [0, *(found.end() for found in _SENTENCE.finditer(context))]
    if ends[-1] != len(context):
        ends.append(len(context))
    return pairwise(ends)


def _noisy(text: str, source: str, draw: random.Random) -> str:
    kept = []
    for character in text:
        if draw.random() >= NOISE_RATE:
            kept.append(character)
        else:
            kept.append(draw.choice(("", character + draw.choice(source), draw.choice(source))))
    return "".join(kept)


def _without_answer(example: Example) -> str | None:
    """The context without the sentences that hold an answer, wherever; None where nothing of use is left."""
    sentences = [example.context[first:last] for first, last in _sentences(example.context)]
    start, end = _answer(example)
    touched = {place for place, (first, last) in enumerate(_sentences(example.context)) if first < end and last > start}
    left = "".join(
        sentence
        for place, sentence in enumerate(sentences)
        if place not in touched and not any(answer in sentence for answer in example.answers)
    )
    return left if len(left) >= 50 else None


def _near_contexts(examples: Sequence[Example], asking: Sequence[Example], draw: random.Random) -> dict[str, str]:
    """For each asking example one of the contexts nearest to its question that hold none of its answers."""
    contexts = list(dict.fromkeys(example.context for example in examples))[:_INDEXED]
    if len(contexts) < 2 or not asking:
        return {}
    answers_on = defaultdict[str, set[str]](set)  # a question may be asked on several contexts
    for example in examples:
        answers_on[example.question].update(example.answers)
    index = bm25s.BM25()
    index.index([_bigrams(context) for context in contexts], show_progress=False)
    found, _ = index.retrieve(
        [_bigrams(example.question) for example in asking],
        corpus=None,
        k=min(len(contexts), _NEAR_CONTEXTS + 1),
        show_progress=False,
    )
    near = {}
    for example, places in zip(asking, found.tolist(), strict=True):
        fitting = [
            contexts[place]
            for place in places
            if contexts[place] != example.context
            and not any(answer in contexts[place] for answer in answers_on[example.question])
        ]
        if fitting:
            near[example.id] = draw.choice(fitting)
    return near


def _bigrams(text: str) -> list[str]:
    return [text[place : place + 2] for place in range(len(text) - 1)] or [text]
