"""Reads: a question and a text in, spans of that text out. Knows nothing of Telegram, SQL or training.

from qa_engine import Reader
reading = Reader.load().read("詹姆斯有多高？", paragraph, top_k=3)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qa_engine.engine import Engine
    from qa_engine.reader import Answer, Ask, Reader, Reading

__all__ = ["Answer", "Ask", "Engine", "Reader", "Reading"]


def __getattr__(name: str) -> Any:
    """Import torch only when a reader is wanted: whoever needs an error or a manifest should not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("qa_engine.engine" if name == "Engine" else "qa_engine.reader"), name)
