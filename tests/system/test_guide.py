"""The guide to one's own data: its commands exist, its script makes what the trainer reads, in both languages."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_readme import blocks, check_flags

from trainer.squad import load

GUIDES = ["docs/own-data.md", "docs/own-data.zh-CN.md"]


def test_both_languages_show_the_same_commands_and_script() -> None:
    for language in ("console", "python", "text"):
        assert blocks(GUIDES[0], language) == blocks(GUIDES[1], language) != []


def test_the_commands_of_the_guide_take_the_flags_they_are_shown_with() -> None:
    for line in "".join(blocks(GUIDES[0], "console")).splitlines():
        words = shlex.split(line, comments=True)
        assert words[:2] == ["python", "-m"]
        check_flags(words[2], words[3:])


@pytest.mark.parametrize("guide", GUIDES)
def test_the_script_of_the_guide_makes_a_file_that_the_trainer_reads(guide: str, tmp_path: Path) -> None:
    (questions,), (script,) = blocks(guide, "text"), blocks(guide, "python")
    (tmp_path / "questions.txt").write_text(questions, encoding="utf-8")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    data_set = load(str(tmp_path / "mine.json"))
    assert [example.answers for example in data_set.examples] == [("十六时三十分",), (), ("十五日内",)]
    assert not data_set.report.moved and not data_set.report.lost


def test_the_script_of_the_guide_stops_at_an_answer_in_other_words(tmp_path: Path) -> None:
    (script,) = blocks(GUIDES[0], "python")
    (tmp_path / "questions.txt").write_text("九时开馆。\n问：几点开门？\n答：九点", encoding="utf-8")
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert "几点开门？ 九点: the answer does not stand in its paragraph" in result.stderr
    assert not (tmp_path / "mine.json").exists()
