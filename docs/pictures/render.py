"""Draws recorded conversations as they look on a phone: a JSON file in conversations/ → HTML → a PNG beside this file.

`python -m docs.pictures.render NAME ...`; no name: all. Needs Chromium and fonts for Chinese (on Debian: `apt install
chromium fonts-noto-cjk fonts-noto-color-emoji`), and Pillow to make the files small. What was said is left to `record`.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

FOLDER = Path(__file__).parent
WIDTH = 500  # in CSS pixels; Chromium makes no window narrower
MAX_HEIGHT = 2400
SCALE = 1.6
MAX_COLOURS = 128
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")

_COMMAND = re.compile(r"<code>.*?</code>|<[^>]+>|(?<![\w/])(/[a-z_]+(?:@\w+)?|@\w+)")
_NAME_COLOURS = ("#c03d33", "#4fad2d", "#d09306", "#168acd", "#8544d6")

STYLE = """
html { background: #fff; }
* { box-sizing: border-box; margin: 0; }
body { width: 500px; background: #c6d9b7; font: 16px/1.42 "Noto Sans CJK SC", "Noto Color Emoji", sans-serif;
  color: #111; }
body:lang(zh-Hant) { font-family: "Noto Sans CJK TC", "Noto Color Emoji", sans-serif; }
header { display: flex; gap: 12px; align-items: center; padding: 10px 16px; background: #517da2; color: #fff; }
header i { width: 42px; height: 42px; border-radius: 50%; background: #fff; color: #517da2;
  font: 700 22px/42px "Noto Sans CJK SC"; text-align: center; }
header b { display: block; font-size: 17px; line-height: 1.25; }
header small { font-size: 13px; color: #cfe0ee; }
main { padding: 10px 12px 14px; display: flex; flex-direction: column; }
.message { max-width: 86%; margin-top: 8px; align-self: flex-start; }
.message.you { align-self: flex-end; }
.bubble { position: relative; padding: 7px 12px 6px; background: #fff; border-radius: 14px 14px 14px 4px;
  box-shadow: 0 1px 1px #0002; overflow-wrap: anywhere; }
.you .bubble { background: #effdde; border-radius: 14px 14px 4px 14px; }
.text { white-space: pre-wrap; }
.text::after { content: ""; display: inline-block; width: 52px; }
time { position: absolute; right: 10px; bottom: 4px; font-size: 11.5px; color: #9aa4ab; }
.you time { color: #62ac55; }
.name { font-weight: 600; font-size: 14.5px; }
.reply { border-left: 3px solid #3390ec; background: #3390ec14; border-radius: 4px; padding: 2px 8px; margin: 1px 0 5px;
  font-size: 14px; line-height: 1.35; }
.you .reply { border-color: #4fae4e; background: #4fae4e18; }
.reply b { display: block; color: #3390ec; }
.you .reply b { color: #4fae4e; }
.reply span { display: block; white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
  max-width: 350px; color: #333; }
.text a { color: #2481cc; }
blockquote { position: relative; border-left: 3px solid #3390ec; background: #3390ec14; border-radius: 4px;
  padding: 4px 10px; margin: 3px 0 5px; white-space: pre-wrap; }
.quoted::after { display: block; width: auto; height: 13px; }
blockquote u { text-decoration-thickness: 2px; text-underline-offset: 3px; }
code { font: 15px "Noto Sans Mono CJK SC", monospace; color: #0f8a5f; }
.note { align-self: center; margin-top: 10px; padding: 2px 12px; border-radius: 12px; background: #56795599;
  color: #fff; font-size: 13.5px; font-weight: 500; }
.file { display: flex; gap: 10px; align-items: center; white-space: normal; padding: 3px 0 4px; min-width: 190px; }
.file i { width: 44px; height: 44px; border-radius: 50%; background: #66a3df; color: #fff;
  font: 700 22px/44px sans-serif; text-align: center; }
.you .file i { background: #6cb861; }
.file b { display: block; font-weight: 600; }
.file small { font-size: 13px; color: #708a6a; }
.buttons { display: flex; gap: 4px; margin-top: 4px; }
.buttons span { flex: 1; background: #56795599; color: #fff; text-align: center; border-radius: 8px; padding: 6px 8px;
  font-size: 15px; font-weight: 500; }
"""


def page(recorded: dict[str, Any]) -> str:
    """The conversation as an HTML page."""
    language = {"zh-hant": "zh-Hant", "en": "en"}.get(recorded["language"], "zh-Hans")
    shown = recorded["messages"]
    said = {message["id"]: message for message in shown if "id" in message}
    title, subtitle = escape(recorded["title"]), escape(recorded["subtitle"] or "")
    messages = "".join(
        note(message["note"]) if "note" in message else bubble(message, said, in_group=bool(recorded["group"]))
        for message in shown
    )
    return (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<body><header><i>{title[:1]}</i><div><b>{title}</b><small>{subtitle}</small></div></header>"
        f"<main>{messages}</main></body></html>"
    )


def note(text: str) -> str:
    return f'<div class="note">{escape(text)}</div>'


def bubble(message: dict[str, Any], said: dict[int, dict[str, Any]], *, in_group: bool) -> str:
    """One message: who wrote it, what it replies to, its file or text, its buttons."""
    is_yours = message["from"] == "you"
    name = "" if is_yours or not in_group else f'<div class="name" {colour(message)}>{writer(message)}</div>'
    replied = said.get(message["replies_to"])
    # That the bot replies to what stands right above need not be said again.
    is_plain = replied is None or (message["from"] == "bot" and not in_group)
    reply = "" if is_plain or replied is None else f"<b>{writer(replied)}</b><span>{first_line(replied)}</span>"
    text = re.sub(r"\n*(<blockquote>)", r"\1", message["html"]).replace("</blockquote>\n", "</blockquote>")
    text = _COMMAND.sub(lambda found: f"<a>{found[1]}</a>" if found[1] else found[0], text)
    rows = "".join(
        '<div class="buttons">' + "".join(f"<span>{escape(text)}</span>" for text in row) + "</div>"
        for row in message["buttons"]
    )
    reply = f'<div class="reply">{reply}</div>' if reply else ""
    if file := message.get("file"):
        text = f'<div class="file"><i>↓</i><div><b>{escape(file["name"])}</b><small>{file["size"]}</small></div></div>'
    side, text_class = "you" if is_yours else "", "text quoted" if text.endswith("</blockquote>") else "text"
    time = message["time"] + (" ✓✓" if is_yours else "")
    return (
        f'<div class="message {side}"><div class="bubble">{name}{reply}'
        f'<div class="{text_class}">{text}</div><time>{time}</time></div>{rows}</div>'
    )


def writer(message: dict[str, Any]) -> str:
    return {"bot": "读问", "you": "你"}.get(message["from"], escape(message["from"]))


def colour(message: dict[str, Any]) -> str:
    return f'style="color: {_NAME_COLOURS[sum(map(ord, message["from"])) % len(_NAME_COLOURS)]}"'


def first_line(message: dict[str, Any]) -> str:
    text: str = re.sub("<[^>]+>", "", message["html"])
    return text.partition("\n")[0]


def draw(html: str, picture: Path) -> None:
    """Have Chromium draw `html`, as high as it is. Raises SystemExit where there is no Chromium."""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        raise SystemExit("Chromium is needed: apt install chromium fonts-noto-cjk fonts-noto-color-emoji")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(html, encoding="utf-8")
        shot = Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/p"]
        window = [f"--window-size={WIDTH},{MAX_HEIGHT}", f"--force-device-scale-factor={SCALE}"]
        command = [chromium, *options, *window, f"--screenshot={shot}", file.as_uri()]
        subprocess.run(command, capture_output=True, check=True)
        with Image.open(shot) as image:
            drawn = image.convert("RGB")
            left, top, _, bottom = ImageChops.difference(drawn, Image.new("RGB", drawn.size, "white")).getbbox()
            shown = drawn.crop((left, top, round(WIDTH * SCALE), bottom))
            shown.quantize(MAX_COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    for path in sorted((FOLDER / "conversations").glob("*.json")):
        if path.stem in sys.argv[1:] or not sys.argv[1:]:
            print(path.stem)
            draw(page(json.loads(path.read_text(encoding="utf-8"))), FOLDER / f"{path.stem}.png")
