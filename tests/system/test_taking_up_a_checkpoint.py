"""Two processes: a bot that is asked without a pause, and a trainer that publishes a checkpoint beside it."""

import subprocess
import sys
import time
from pathlib import Path

from tests.system.bot_api_server import BotApiServer
from tests.system.bot_process import ROOT, started
from tests.system.people import private_chat, telegram

POLL_SECONDS = 2
TAKEN_UP_WITHIN_SECONDS = 30
TRAINED_WITHIN_SECONDS = 300


def test_a_running_bot_takes_up_what_the_trainer_publishes_and_answers_all_the_while(
    tmp_path: Path, wordpiece_model: Path
) -> None:
    training = [
        *(sys.executable, "-m", "trainer", "--base", str(wordpiece_model), "--max_steps", "2"),
        *("--dev", str(ROOT / "trainer/sample/dev.json"), "--output_dir", str(tmp_path / "training")),
        *("--checkpoint_dir", str(tmp_path / "checkpoints"), "--eval_strategy", "no", "--save_strategy", "no"),
        *("--load_best_model_at_end", "false", "--report_to", "none"),
    ]
    with (
        BotApiServer().running() as server,
        started(tmp_path, **telegram(server), CHECKPOINT_POLL_SECONDS=str(POLL_SECONDS)),
        subprocess.Popen(training, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as trainer,
    ):
        user = private_chat(server, "en")
        user.asks("/context 小镇的茶馆每天早上六点开门，老板姓吴，最有名的茶是桂花乌龙。")
        assert "bundled" in user.asks("/status")
        questions = []
        deadline = time.monotonic() + TRAINED_WITHIN_SECONDS
        while trainer.poll() is None and time.monotonic() < deadline:
            questions.append(user.says("茶馆几点开门？"))
            server.reply_to(questions[-1])
        assert trainer.returncode == 0 and trainer.stdout
        published = Path(trainer.stdout.read().strip()).name
        deadline = time.monotonic() + TAKEN_UP_WITHIN_SECONDS
        while published not in user.asks("/status"):
            assert time.monotonic() < deadline, "the bot did not take up the checkpoint in time"
            questions.append(user.says("老板姓什么？"))
            server.reply_to(questions[-1])
        questions.append(user.says("最有名的茶是什么？"))
        replies = [server.reply_to(question) for question in questions]
        assert len(replies) == len(questions) > 1
        assert f"Questions answered: {len(questions)}" in user.asks("/status")
