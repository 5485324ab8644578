"""A vocabulary without Chinese pieces of several characters: answers that begin or end inside a piece can then be cut.

Unigram vocabularies (SentencePiece's) join what often stands together: 是由, 》《, 年的. An answer whose border lies
inside such a piece can only be given with a character too many. BERT's own Chinese vocabularies have no such pieces.
Knows tokenizer.json and embedding matrices; nothing of training.
"""

import json
import re
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from qa_engine.errors import CheckpointBroken

_SPACE = "▁"
_CHINESE = re.compile(r"[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True)
class Cut:
    """What a vocabulary lost and got; `sources[new id]` are the old ids whose mean is its embedding."""

    removed: int
    added: int
    sources: tuple[tuple[int, ...], ...]


def is_joined(piece: str) -> bool:
    """Whether an answer's border may lie inside a piece: several characters, one of them Chinese or no letter or digit.

    The mark of a space counts as a character: ▁ and 我 are two, so that 我 is the same piece wherever it stands.
    """
    return joins_punctuation(piece) or bool(_CHINESE.search(piece) and len(piece) > 1)


def joins_punctuation(piece: str) -> bool:
    """Whether a piece joins a sign with something else, as 》， does. Runs of one sign, such as ......, do not."""
    bare = piece.removeprefix(_SPACE)
    return len(set(bare)) > 1 and any(unicodedata.category(character)[0] not in "LNM" for character in bare)


def single_characters(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, is_removed: Callable[[str], bool] = is_joined
) -> tuple[PreTrainedTokenizerBase, Cut]:
    """Cut the model's embeddings in place, its output bias too where it has one; returns the tokenizer that fits.

    `is_removed` chooses the pieces to go: `is_joined`, or `joins_punctuation` for these alone.

    Pieces that stay keep their embeddings. A character that stood only in joined pieces gets a piece of its own, with
    the mean of their embeddings and the best of their scores. Raises CheckpointBroken for other than Unigram
    vocabularies.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        file = Path(folder) / "tokenizer.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        cut = _cut_tokenizer(content, is_removed)
        file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        new_tokenizer = AutoTokenizer.from_pretrained(folder)
    _cut_model(model, cut)
    return new_tokenizer, cut


def _cut_tokenizer(content: dict[str, Any], is_removed: Callable[[str], bool]) -> Cut:
    """Cut tokenizer.json's content in place."""
    unigram = content["model"]
    if unigram.get("type") != "Unigram":
        raise CheckpointBroken(
            f"its vocabulary is {unigram.get('type')}, not Unigram: only Unigram vocabularies can be cut to single "
            "characters (BERT's Chinese ones read single characters as they are)"
        )
    pieces: list[tuple[str, float]] = [(piece, score) for piece, score in unigram["vocab"]]
    special = {token["content"] for token in content["added_tokens"]}
    joined = [place for place, (piece, _) in enumerate(pieces) if piece not in special and is_removed(piece)]
    removed = set(joined)
    kept = [place for place in range(len(pieces)) if place not in removed]
    known = {pieces[place][0] for place in kept}
    holders: dict[str, list[int]] = {}
    for place in joined:
        for character in dict.fromkeys(pieces[place][0]):
            if character not in known:
                holders.setdefault(character, []).append(place)
    sources = [(place,) for place in kept] + [tuple(places) for places in holders.values()]
    new_pieces = [pieces[place] for place in kept]
    new_pieces += [(character, max(pieces[place][1] for place in places)) for character, places in holders.items()]
    new_ids = {old: new for new, old in enumerate(kept)}
    for token in sorted(content["added_tokens"], key=lambda token: int(token["id"])):
        if token["id"] >= len(pieces):  # added behind the vocabulary, as a mask is
            new_ids[token["id"]] = len(sources)
            sources.append((token["id"],))
        token["id"] = new_ids[token["id"]]
    unigram["vocab"] = [list(piece) for piece in new_pieces]
    unigram["unk_id"] = new_ids[unigram["unk_id"]]
    for token in (content["post_processor"] or {}).get("special_tokens", {}).values():
        token["ids"] = [new_ids[old] for old in token["ids"]]
    return Cut(removed=len(removed), added=len(holders), sources=tuple(sources))


def _cut_model(model: PreTrainedModel, cut: Cut) -> None:
    """Give the model the rows of `cut.sources` in place of those it had."""
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    bias = getattr(output, "bias", None)
    rows = [model.get_input_embeddings().weight, *([] if bias is None else [bias])]
    new_rows = [torch.stack([matrix.detach()[list(places)].mean(0) for places in cut.sources]) for matrix in rows]
    new_ids = {places[0]: new for new, places in enumerate(cut.sources) if len(places) == 1}
    model.resize_token_embeddings(len(cut.sources), mean_resizing=False)
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    bias = getattr(output, "bias", None)
    rows = [model.get_input_embeddings().weight, *([] if bias is None else [bias])]
    with torch.no_grad():
        for matrix, new in zip(rows, new_rows, strict=True):
            matrix.copy_(new)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        old = getattr(model.config, name, None)
        if isinstance(old, int):
            setattr(model.config, name, new_ids[old])
