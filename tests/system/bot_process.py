"""The real program in a process of its own, with nothing from this machine's settings in it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 300
LOG = "bot.log"


@dataclass(frozen=True)
class BotProcess:
    """A running `python -m bot …` with its database, checkpoints and log in `folder`."""

    process: subprocess.Popen[bytes]
    folder: Path

    def output(self) -> str:
        """What has gone to stdout and stderr so far."""
        return (self.folder / LOG).read_text(encoding="utf-8")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        return self.process.wait(WAIT_SECONDS)


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """A bot's whole environment: database and checkpoints in `folder`, everything else from `settings`."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "*",
        "DATABASE_URL": f"sqlite:///{folder / 'duwen.db'}",
        "CHECKPOINT_DIR": str(folder / "checkpoints"),
        **settings,
    }


@contextmanager
def started(folder: Path, *arguments: str, **settings: str) -> Iterator[BotProcess]:
    """`python -m bot` with `arguments`, at work in `folder`; it does not outlive the block."""
    with (folder / LOG).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bot", *arguments],
            cwd=folder,
            env=environment(folder, **settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield BotProcess(process, folder)
    finally:
        process.kill()
        process.wait(WAIT_SECONDS)


def run(folder: Path, *arguments: str, typed: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """`python -m bot` with `arguments`, from start to end, `typed` piped into it."""
    return subprocess.run(
        [sys.executable, "-m", "bot", *arguments],
        cwd=folder,
        env=environment(folder, **settings),
        input=typed,
        capture_output=True,
        encoding="utf-8",
        timeout=2 * WAIT_SECONDS,
        check=False,
    )
