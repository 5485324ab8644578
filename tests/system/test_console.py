"""The real program in a terminal: piped lines in, what a user would see out; the demo that the README shows."""

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.bot_process import ROOT, WAIT_SECONDS, environment, run

DEMO = ROOT / "bot" / "demo.txt"
PARAGRAPH = "勒布朗·詹姆斯是一位美国职业篮球运动员，现效力于洛杉矶湖人队。"
ANSWERS = {
    "詹姆斯在哪个球队？": "洛杉矶湖人队",
    "詹姆斯出生于哪个城市？": "俄亥俄州阿克伦市",
    "詹姆斯是哪一年加入NBA的？": "2003年",
    "詹姆斯有多高？": "203厘米",
    "詹姆斯在哪一年夺冠？": "2016年",
    "这段话的主角叫什么名字？": "勒布朗·詹姆斯",
    "詹姆斯的体重是多少？": "113公斤",
    "图书可以借多久？": "三十天",
    "少年儿童阅览室在哪里？": "二楼东侧",
    "每人一次最多可以借几册书？": "六册",
    "咨询电话由谁接听？": "林女士",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    return run(tmp_path_factory.mktemp("demo"), "chat", "--play", str(DEMO))


def replies_in(transcript: str) -> dict[str, str]:
    """The reply to every line that was played."""
    pieces = re.split(r"^> (.*)\n", transcript, flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def test_the_demo_gets_a_reply_to_every_line(demo: subprocess.CompletedProcess[str]) -> None:
    played = [line for line in DEMO.read_text().splitlines() if line and not line.startswith("#")]
    replies = replies_in(demo.stdout)
    assert list(replies) == played
    assert all(reply.strip() for reply in replies.values())
    assert demo.stderr == ""
    assert demo.returncode == 0


@pytest.mark.parametrize("question", ANSWERS)
def test_the_demo_s_questions_are_answered(demo: subprocess.CompletedProcess[str], question: str) -> None:
    replies = {line.removeprefix("/ask "): reply for line, reply in replies_in(demo.stdout).items()}
    answer, _, *evidence, facts, buttons = replies[question].strip().split("\n")
    assert answer == ANSWERS[question]
    assert re.fullmatch(r"第 [12] 段 · 置信度：[高低中等]+（[<>]?\d+%）", facts)
    assert f"【{answer}】" in "\n".join(evidence)
    assert buttons.endswith("[上下文] [👍] [👎]")


def test_the_demo_s_question_without_an_answer_is_told_so(demo: subprocess.CompletedProcess[str]) -> None:
    assert replies_in(demo.stdout)["/ask 詹姆斯的年薪是多少？"].startswith("段落中无法找到答案\n")


def test_piped_lines_are_answered_in_any_locale(tmp_path: Path) -> None:
    typed = f"/context {PARAGRAPH}\\\n第二行。\n\n/context\n/ask 詹姆斯在哪个球队？"
    ended = run(tmp_path, "chat", typed=typed, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert f"段落已设置，共 {len(PARAGRAPH) + 5} 字。" in ended.stdout
    assert f"│ {PARAGRAPH}\n│ 第二行。\n" in ended.stdout
    assert "\n洛杉矶湖人队\n" in ended.stdout
    assert (ended.returncode, ended.stderr) == (0, "")


def test_bytes_that_are_no_text_and_control_characters_do_no_harm(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bot", "chat"],
        cwd=tmp_path,
        env=environment(tmp_path),
        input=b"/context \x1b]0;title\x07\xff\xfe\0 \xe6\xb9\x96\r\n/context\n",
        capture_output=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert "│ �]0;title���� 湖\n" in ended.stdout.decode()
    assert b"\x1b" not in ended.stdout


def test_the_paragraph_is_still_set_the_next_time_and_english_is_spoken_on_request(tmp_path: Path) -> None:
    run(tmp_path, "chat", typed=f"/context {PARAGRAPH}")
    ended = run(tmp_path, "chat", "--language", "en", typed="/context\n/reload")
    assert "Paragraph set by terminal" in ended.stdout
    assert "There is no new checkpoint." in ended.stdout
    assert ended.returncode == 0


def test_what_is_said_the_next_time_neither_edits_nor_continues_what_was_said_before(tmp_path: Path) -> None:
    run(tmp_path, "chat", typed=f"/context {PARAGRAPH * 70}")
    ended = run(tmp_path, "chat", typed="詹姆斯在哪个球队？\n/context 第二篇。")
    assert "\n洛杉矶湖人队\n" in f"\n{ended.stdout}"
    ended = run(tmp_path, "chat", typed="/context 第三篇。\n/contexts")
    assert "保存的段落：3 个" in ended.stdout


def test_a_line_that_fails_is_shown_by_the_exit_status(tmp_path: Path) -> None:
    """Migrated, then spoilt: the tables are gone, but the database says that it is up to date."""
    run(tmp_path, "migrate")
    spoil = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('DROP TABLE contexts')"
    subprocess.run([sys.executable, "-c", spoil, str(tmp_path / "duwen.db")], check=True)
    ended = run(tmp_path, "chat", typed="/help\n/context\n")
    assert ended.returncode == 1
    assert re.search("[0-9a-f]{8}\n", ended.stdout)
    assert "Traceback" in ended.stderr


def test_a_script_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path, "chat", "--play", "nothing.txt")
    assert ended.returncode == 1
    assert re.fullmatch(r"bot: Cannot play nothing\.txt: .+\n", ended.stderr)


def test_at_a_terminal_there_is_a_prompt_and_answers_are_bold_and_underlined(tmp_path: Path) -> None:
    """After a script, a terminal goes on with what is typed, until Ctrl-D."""
    script = tmp_path / "script.txt"
    script.write_text(f"# not sent\n/context {PARAGRAPH}\n", encoding="utf-8")
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bot", "chat", "--play", str(script)],
        cwd=tmp_path,
        env=environment(tmp_path, TERM="xterm"),
        stdin=there,
        stdout=there,
        stderr=there,
    )
    os.close(there)
    try:
        shown = read_until_prompt(here)
        os.write(here, "詹姆斯在哪个球队？\n".encode())
        shown += read_until_prompt(here)
        os.write(here, b"\x04")
        assert process.wait(WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait(WAIT_SECONDS)
        os.close(here)
    assert shown.startswith(f"> /context {PARAGRAPH}")
    assert "not sent" not in shown
    assert "Ctrl-D" in shown
    assert re.search("│ .*\x1b\\[1m\x1b\\[4m.+\x1b\\[24m\x1b\\[22m", shown)


def read_until_prompt(terminal: int) -> str:
    """What a terminal shows until it asks for input."""
    shown = b""
    while not shown.endswith(b"\n> "):
        assert select.select([terminal], [], [], WAIT_SECONDS)[0], f"no prompt after {shown!r}"
        shown += os.read(terminal, 65536)
    return shown.decode()
