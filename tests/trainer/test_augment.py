"""Augmentation: the answer survives every change, draws can be repeated, and unanswerable means unanswerable."""

import random
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qa_engine.errors import DataError
from qa_engine.windows import WindowMaker, WindowSizes
from trainer.augment import (
    Augmentation,
    disturbed,
    in_other_script,
    paraphrased,
    rewritten,
    shuffled,
    thinned,
    unanswerable,
)
from trainer.features import TrainingWindows, tokenize_examples
from trainer.squad import Example, Span

CONTEXT = "李雷一九八〇年生于青岛。他写过三本书！其中《海风》最有名？后来他搬到了北京。\n他在那里教书，直到退休。"
EVERYTHING = Augmentation(paraphrase=1, noise=1, shuffle=1)


def example(
    answer: str, context: str = CONTEXT, question: str = "他什么时候生于青岛？", identity: str = "a"
) -> Example:
    return Example(identity, question, context, (answer,), Span(answer, context.index(answer)))


@st.composite
def examples(draw: st.DrawFn) -> Example:
    before, answer, after = (
        draw(st.text("中国人。！？\n「」 a１🙂é", min_size=least, max_size=40)) for least in (0, 1, 0)
    )
    return Example("a", draw(st.text(max_size=20)), before + answer + after, (answer,), Span(answer, len(before)))


@given(one=examples(), seed=st.integers())
def test_the_answer_stands_where_the_changed_example_says(one: Example, seed: int) -> None:
    for change in (EVERYTHING, shuffled, disturbed):
        changed = change(one, random.Random(seed))
        assert changed.span is not None and one.span is not None
        assert changed.span.text == one.span.text
        assert changed.context[changed.span.start : changed.span.end] == one.span.text
        assert changed.answers == one.answers


@given(one=examples(), seed=st.integers())
def test_shuffling_keeps_every_character(one: Example, seed: int) -> None:
    assert sorted(shuffled(one, random.Random(seed)).context) == sorted(one.context)


@given(one=examples(), seed=st.integers())
def test_the_same_draw_makes_the_same_change(one: Example, seed: int) -> None:
    assert EVERYTHING(one, random.Random(seed)) == EVERYTHING(one, random.Random(seed))


def test_thinning_keeps_short_answers_and_a_share_of_the_long_ones() -> None:
    long_answer = CONTEXT[:30]
    short = [example("青岛", identity=f"short-{number}") for number in range(300)]
    long = [example(long_answer, identity=f"long-{number}") for number in range(300)]
    unsaid = [Example("unsaid", "他的妻子是谁？", CONTEXT, (), None)]
    kept = thinned([*long, *short, *unsaid], 10, seed=0)
    assert [one for one in kept if one not in long] == [*short, *unsaid]
    assert 80 <= sum(one in long for one in kept) <= 120  # one in three
    assert thinned([*long, *short, *unsaid], 10, seed=0) == kept


@given(question=st.text(min_size=1, max_size=30).filter(str.strip), seed=st.integers())
def test_a_paraphrase_is_never_empty(question: str, seed: int) -> None:
    assert paraphrased(question, random.Random(seed)).strip()


def test_question_words_are_exchanged_for_their_like() -> None:
    found = {paraphrased("他什么时候出生？", random.Random(seed)).strip("？?呢请问請我想知道") for seed in range(60)}
    assert {"他什么时候出生", "他何时出生", "他什么时间出生"} <= found


def test_shuffling_moves_sentences_but_not_inside_an_answer_of_two() -> None:
    one = example("他写过三本书！其中《海风》最有名？")
    contexts = {shuffled(one, random.Random(seed)).context for seed in range(20)}
    assert len(contexts) > 3
    assert all(one.answers[0] in context for context in contexts)


def test_noise_leaves_the_answer_alone_and_changes_the_rest() -> None:
    one = example("三本书", CONTEXT * 5)
    changed = disturbed(one, random.Random(0))
    assert changed.context != one.context
    assert abs(len(changed.context) - len(one.context)) < 0.1 * len(one.context)


def test_an_example_in_the_other_script_is_another_text_with_the_answer_in_place() -> None:
    one = example("三本书")
    changed = in_other_script(one)
    assert changed.question == "他什麼時候生於青島？"
    assert changed.answers == ("三本書",)
    assert changed.span == Span("三本書", CONTEXT.index("三本书"))
    assert changed.context[changed.span.start : changed.span.end] == "三本書"
    assert in_other_script(changed) == one
    assert Augmentation(other_script=1)(one, random.Random(0)) == changed


def test_a_text_without_a_script_stays_as_it_is() -> None:
    one = example("1980", "born in 1980", "where?")
    assert in_other_script(one) is one


def test_without_a_share_nothing_is_changed() -> None:
    one = example("三本书")
    assert not Augmentation()
    assert Augmentation()(one, random.Random(0)) is one


def town(name: str) -> Example:
    other = "".join(chr(ord(character) + 7) for character in name) * 9
    context = (
        f"{name}的市长是{name}长。{name}有一条河，河上有三座桥。{other}的居民每年夏天在河边过节，" + "人人都来。" * 8
    )
    return Example(name, f"{name}的市长是谁？", context, (f"{name}长",), Span(f"{name}长", len(name) + 4))


TOWNS = [town(name) for name in ("甲乙", "丙丁", "戊己", "庚辛", "壬癸", "子丑", "寅卯", "辰巳")]


def test_unanswerable_pairs_hold_no_answer_and_say_so() -> None:
    pairs = unanswerable(TOWNS, 8, seed=0)
    answers = {one.question: one.answers[0] for one in TOWNS}
    assert len(pairs) == 8
    for pair in pairs:
        assert pair.is_impossible and pair.span is None
        assert answers[pair.question] not in pair.context
    assert len({pair.id for pair in pairs} | {one.id for one in TOWNS}) == 16
    own_context = {one.question: one.context for one in TOWNS}
    remains = [pair for pair in pairs if pair.context in own_context[pair.question]]
    assert len(remains) == 4, "half of them: the own context without its answer"


def test_unanswerable_pairs_are_a_function_of_the_seed() -> None:
    assert unanswerable(TOWNS, 6, seed=1) == unanswerable(TOWNS, 6, seed=1)
    assert unanswerable(TOWNS, 6, seed=1) != unanswerable(TOWNS, 6, seed=2)


def test_a_near_context_that_answers_the_question_is_not_taken() -> None:
    everywhere = [
        Example(str(n), "谁？", f"{n}号。" + CONTEXT, ("李雷",), Span("李雷", len(f"{n}号。"))) for n in range(6)
    ]
    near = [pair for pair in unanswerable(everywhere, 6, seed=0) if "李雷" in pair.context]
    assert near == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_one_context_is_enough_to_ask_for(count: int) -> None:
    assert len(unanswerable([example("三本书")], count, seed=0)) <= count


def test_a_users_own_rewriter_reads_and_writes_lines(tmp_path: Path) -> None:
    program = "import sys; [print(line.strip()[::-1]) for line in sys.stdin]"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"
    (one,) = rewritten([example("三本书", question="他\n写过什么？")], command, tmp_path / "new" / "kept.txt")
    assert one.question == "？么什过写 他"
    assert one.answers == ("三本书",)
    assert one.id != "a"


def test_what_a_rewriter_has_drawn_once_is_kept(tmp_path: Path) -> None:
    program = "import sys, random; [print(random.random()) for line in sys.stdin]"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"
    first, again, other = (rewritten([example("三本书")], command, tmp_path / name) for name in ("a", "a", "b"))
    assert first == again != other


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("false", "exit status 1"),
        ("true", "0 lines for 1 questions"),
        ("no-such-program --here", "cannot be run"),
    ],
)
def test_a_rewriter_that_does_not_keep_to_it_is_named(command: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=complaint):
        rewritten([example("三本书")], command, tmp_path / "kept.txt")


def test_training_windows_show_another_wording_in_every_epoch(any_model: Path) -> None:
    maker = WindowMaker(AutoTokenizer.from_pretrained(any_model), WindowSizes(max_tokens=136, stride=32))
    tokenized = tokenize_examples([example("三本书")], maker)
    windows = TrainingWindows(tokenized, maker, windows_without_answer=0, seed=0, augment=Augmentation(noise=1))
    seen = set()
    for windows.epoch in range(4):
        item = windows[0]
        assert windows[0].window.input_ids.tolist() == item.window.input_ids.tolist(), "a draw can be repeated"
        assert 0 < item.start_token <= item.end_token
        seen.add(tuple(item.window.input_ids.tolist()))
    assert len(seen) > 1
