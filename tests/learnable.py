"""A small data set that even a tiny model learns in seconds: where the 7 stands in a text."""

import json
import random
from pathlib import Path

_CHARACTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行"
)


def write(path: Path, contexts: int, *, seed: int, wrong: bool = False) -> Path:
    """`contexts` texts of 20 to 60 characters with a question each; `wrong` answers name another place."""
    draw = random.Random(seed)
    paragraphs = []
    for number in range(contexts):
        characters = draw.choices(_CHARACTERS, k=draw.randint(20, 60))
        place = draw.randrange(2, len(characters) - 2)
        characters[place] = "7"
        start = place - 2 if wrong else place
        answer = {"text": characters[start], "answer_start": start}
        qas = [{"id": f"{path.stem}-{number}", "question": "有几个？", "answers": [answer]}]
        paragraphs.append({"context": "".join(characters), "qas": qas})
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}, ensure_ascii=False), encoding="utf-8")
    return path
