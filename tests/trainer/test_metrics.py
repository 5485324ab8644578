"""EM and F1 count as CMRC 2018's official script does, on strings that tempt one to count otherwise."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics import score

# The official script's list, entry by entry; '……' is two characters, so it never equals one and stays in the text.
OFFICIAL_PUNCTUATION = [
    *[
        "-",
        ":",
        "_",
        "*",
        "^",
        "/",
        "\\",
        "~",
        "`",
        "+",
        "=",
        "，",
        "。",
        "：",
        "？",
        "！",
        "“",
        "”",
        "；",
        "’",
        "《",
        "》",
    ],
    *["……", "·", "、", "「", "」", "（", "）", "－", "～", "『", "』"],
]


def pieces(text: str) -> list[str]:
    """The official segmentation, for texts whose English has no punctuation inside words."""
    kept = re.sub(
        "|".join(re.escape(mark) for mark in OFFICIAL_PUNCTUATION if len(mark) == 1), "", text.lower().strip()
    )
    return re.findall(r"[\u4e00-\u9fa5]|[^\u4e00-\u9fa5\s]+", kept)


def official_em(reference: str, prediction: str) -> float:
    table = str.maketrans(dict.fromkeys((mark for mark in OFFICIAL_PUNCTUATION if len(mark) == 1), ""))
    return float(reference.lower().strip().translate(table) == prediction.lower().strip().translate(table))


def official_f1(reference: str, prediction: str) -> float:
    expected, found = pieces(reference), pieces(prediction)
    runs = {tuple(found[start:end]) for start in range(len(found)) for end in range(start + 1, len(found) + 1)}
    common = max(
        (
            length
            for length in range(1, len(expected) + 1)
            for at in range(len(expected))
            if run(expected, at, length) in runs
        ),
        default=0,
    )
    return 2 * common / (len(expected) + len(found)) if common else 0.0


def run(sequence: Sequence[str], at: int, length: int) -> tuple[str, ...] | None:
    return tuple(sequence[at : at + length]) if at + length <= len(sequence) else None


TRICKY = [
    ("光绪十四年（1888年）", "光绪十四年"),
    ("光绪十四年（1888年）", "1888年"),
    ("《兰亭序》", "兰亭序"),
    ("兰亭序。", "《兰亭序》"),
    ("NBA 2K19", "nba2k19"),
    ("NBA 2K19", "2k19 nba"),
    ("勒布朗·詹姆斯", "詹姆斯·勒布朗"),
    ("1,000萬元", "1000萬元"),
    ("臺灣", "台湾"),
    ("臺灣大學", "臺灣"),
    ("北京北京", "北京"),
    ("甲乙甲乙丙", "乙甲乙甲丙"),
    ("一……二", "一二"),
    ("一…二", "一。二"),
    ("王羲之", ""),
    ("。", ""),
    ("", "王羲之"),
    ("", ""),
    ("𠮷野家", "𠮷野"),
    ("12 月 3 日", "12月3日"),
    ("Apple公司CEO", "apple 公司 ceo"),
    ("ＡＢＣ", "abc"),
    ("①②", "①"),
    ("3-4", "34"),
]


@pytest.mark.parametrize(("reference", "prediction"), TRICKY)
def test_tricky_pairs_count_as_in_the_official_script(reference: str, prediction: str) -> None:
    counted = score(prediction, [reference])
    assert counted.em == official_em(reference, prediction)
    assert counted.f1 == pytest.approx(official_f1(reference, prediction))


MIXED = st.text("王李一二。，《》…aB1 「」\u3000\n臺🙂", max_size=12)


@given(MIXED, MIXED)
@settings(deadline=None)
def test_any_pair_counts_as_in_the_official_script(reference: str, prediction: str) -> None:
    counted = score(prediction, [reference])
    assert counted.em == official_em(reference, prediction)
    assert counted.f1 == pytest.approx(official_f1(reference, prediction))


@pytest.mark.parametrize(
    ("reference", "prediction", "em", "f1"),
    [
        ("洛杉矶湖人队", "湖人队", 0, 2 * 3 / 9),
        ("洛杉矶湖人队", "洛杉矶的湖人队", 0, 2 * 3 / 13),  # the longest run counts, not all common characters
        ("“203厘米”", "203厘米", 1, 1),
        ("203厘米", "20厘米", 0, 2 * 2 / 6),  # a number is one word
        ("don't stop", "do not stop", 0, 2 * 1 / 6),  # do n't stop: NLTK's words
        ("$5 million", "5 million", 0, 2 * 2 / 5),
        ("王羲之", "张旭", 0, 0),
    ],
)
def test_known_pairs_have_known_scores(reference: str, prediction: str, em: float, f1: float) -> None:
    counted = score(prediction, [reference])
    assert counted.em == em
    assert counted.f1 == pytest.approx(f1)


@given(MIXED, st.lists(MIXED, min_size=1, max_size=3))
@settings(deadline=None)
def test_scores_are_shares_symmetric_and_the_best_over_the_references(prediction: str, references: list[str]) -> None:
    counted = score(prediction, references)
    alone = [score(prediction, [reference]) for reference in references]
    assert 0 <= counted.f1 <= 1
    assert (counted.em, counted.f1) == (max(one.em for one in alone), max(one.f1 for one in alone))
    for reference, one in zip(references, alone, strict=True):
        assert one == score(reference, [prediction])
        assert (one.f1 == 1) == (pieces(prediction) == pieces(reference) != [])


def test_em_and_f1_may_come_from_different_references() -> None:
    assert score("王羲之", ["王 羲之", "王羲之的儿子", "王羲之"]).em == 1
    best = score("洛杉矶湖人", ["湖人队", "洛杉矶湖人队"])
    assert best.em == 0
    assert best.f1 == pytest.approx(10 / 11)


def test_where_the_context_does_not_say_only_silence_is_right() -> None:
    assert score("", []).em == score("", []).f1 == 1
    assert score("王羲之", []).em == score("王羲之", []).f1 == 0
