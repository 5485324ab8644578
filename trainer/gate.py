"""The gate before publishing: what F1 a training must reach on the user's own dev data. Knows figures only."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from qa_engine.errors import DuwenError


class NotPublished(DuwenError):
    """A training came to its end but not through the gate: its checkpoint is whole and kept, not published."""

    def __init__(self, reason: str, kept: Path, checkpoint_dir: Path) -> None:
        super().__init__(
            f"not published: {reason}. The checkpoint is whole and kept at {kept}. To publish it all the same: "
            f"mv {shlex.join([str(kept), f'{checkpoint_dir}/'])}; to train it further: --base {shlex.quote(str(kept))}"
        )
        self.kept = kept


@dataclass(frozen=True)
class Bar:
    """An F1 in per cent that must be reached, and where it comes from."""

    f1: float
    origin: str


def why_not(f1: float, bars: list[Bar]) -> str | None:
    """Which bars an F1 on the dev data is below; None where it reaches all of them."""
    missed = [f"{bar.f1:.2f} ({bar.origin})" for bar in bars if f1 < bar.f1]
    return f"F1 on the dev data is {f1:.2f}, below {' and '.join(missed)}" if missed else None
