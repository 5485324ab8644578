"""What several tests of this folder use: texts of every kind, and small checkpoints made by the real `publish`."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import strategies as st

from qa_engine.checkpoints import Calibration, Manifest, WindowSettings, publish

CHARACTERS_TO_THE_EYE = [
    *"中国人民，。？「」『』（）《》aB1 ",
    *["體", "臺", "𠮷", "㎏", "½", "ﷺ", "Ａ", "１", "\u3000", "\t", "\n", "\r\n", "\0", "\ufeff"],
    *[
        "e\u0301",
        "葛\U000e0100",
        " \u0301",
        "👍🏽",
        "👨‍👩‍👧",
        "🇨🇳",
        "🇩🇪",
        "1\ufe0f\u20e3",
        "🏴\U000e0067\U000e0062\U000e007f",
    ],
]
"""Each is one character as people see it; several of them are more than one of Python's."""

any_text = st.lists(
    st.one_of(
        st.sampled_from([*CHARACTERS_TO_THE_EYE, "中国人民的时间", "\ud83d"]), st.characters(exclude_categories=[])
    ),
    max_size=60,
).map("".join)
"""Any string that Python can hold, lone surrogates included; Chinese more often than the rest."""


def publish_copy(
    model: Path,
    folder: Path,
    *,
    hour: int = 0,
    windows: WindowSettings | None = None,
    no_answer_threshold: float = 0.5,
    alter: Callable[[Path], object] | None = None,
) -> Path:
    """Publish `model` into `folder` as made at that hour; `alter` has its way with the files before they are sealed."""

    def write_files(unfinished: Path) -> None:
        shutil.copytree(model, unfinished, dirs_exist_ok=True)
        if alter is not None:
            alter(unfinished)

    manifest = Manifest(
        created=datetime(2026, 1, 1, hour, tzinfo=UTC),
        base_model="random weights",
        windows=windows or WindowSettings(),
        calibration=Calibration(no_answer_threshold=no_answer_threshold),
    )
    return publish(folder, manifest, write_files)
