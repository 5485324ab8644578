"""Files in, text out: .txt, .md, .pdf and .docx, told apart by what they hold, not by their names.

`read_document` hands the bytes to a process of its own (`python -m bot.documents`), which has a limited memory and
a limited time, knows no token, and is killed when it goes over: a hostile file can hurt nobody else. How a file
comes from Telegram and what its sender is told is left to `bot.handlers.files`.
"""

import asyncio
import io
import json
import math
import os
import re
import signal
import sys
import unicodedata
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from bot.errors import DocumentRefused, Unreadable

TEXT, PDF, DOCX = "text", "pdf", "docx"
MAX_UNPACKED_BYTES = 200_000_000  # of a .docx, pictures and all
MAX_XML_BYTES = 30_000_000  # of a .docx; libxml2 needs some ten times as much memory, and fails without a word
MAX_JSON_BYTES_A_CHAR = 12  # a character beyond U+FFFF in ASCII JSON
SAMPLE_CHARS = 20_000
ENCODINGS = ["gb18030", "big5hkscs", "utf_16_le", "utf_16_be"]  # beside UTF-8 and whatever has a byte order mark
BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
MAX_UNREADABLE_SHARE = 0.02
DOCX_LEFT_OUT = ("w:del", "w:moveFrom", "w:rt", "w:txbxContent")  # what was deleted, pinyin above words, text boxes
DOCX_WRAPPERS = ("w:sdt", "w:sdtContent", "w:customXml", "w:ins", "w:moveTo")  # around paragraphs, rows or cells
FULL_LINE_SHARE = 0.8
ONE_AT_A_TIME_BYTES = 65536
CLOCK_FACTOR = 4  # a busy machine gives a process a quarter of a processor's time at least

_SENTENCE_END = re.compile(r"[。！？!?；;：:.…][」』”’）》】〉)\]]*$")


@dataclass(frozen=True)
class Limits:
    """What a file may cost: bytes, pages and characters of the file; processor time and memory to read it."""

    max_bytes: int
    max_pages: int
    max_chars: int
    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Document:
    """A file's text. `page_starts` has the offset of each page's first character; empty where there are no pages."""

    kind: str
    text: str
    page_starts: tuple[int, ...] = ()


async def read_document(data: bytes, limits: Limits, on_pages: Callable[[int], Awaitable[object]]) -> Document:
    """The text of the file `data`, read by another process; `on_pages` is told how many pages there are to read.

    Raises DocumentRefused, whose `reason` says why there is no text.
    """
    if len(data) > limits.max_bytes:
        raise DocumentRefused(Unreadable.TOO_LARGE, limit=limits.max_bytes)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, json.dumps(asdict(limits))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_bare_environment(),
        limit=MAX_JSON_BYTES_A_CHAR * limits.max_chars + 32 * limits.max_pages + ONE_AT_A_TIME_BYTES,
    )
    try:
        async with asyncio.timeout(CLOCK_FACTOR * limits.seconds):
            document = await _exchange(process, data, on_pages)
            if document is not None:
                return document
            # It has died without a word: of its time, or of hunger.
            if -await process.wait() != getattr(signal, "SIGXCPU", None):
                raise DocumentRefused(Unreadable.TOO_DEMANDING)
            raise TimeoutError
    except TimeoutError:
        raise DocumentRefused(Unreadable.TOO_SLOW, limit=round(limits.seconds)) from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _exchange(
    process: asyncio.subprocess.Process, data: bytes, on_pages: Callable[[int], Awaitable[object]]
) -> Document | None:
    """Send the file, take what the process says about it: a line of JSON each. None where it ends without a word."""
    if process.stdin is None or process.stdout is None:
        return None
    with suppress(ConnectionError):  # it has died, or knows enough
        for start in range(0, len(data), ONE_AT_A_TIME_BYTES):
            process.stdin.write(data[start : start + ONE_AT_A_TIME_BYTES])
            await process.stdin.drain()
        process.stdin.close()
    while line := await process.stdout.readline():
        said = json.loads(line)
        match said["is"]:
            case "pages":
                await on_pages(said["pages"])
            case "refused":
                raise DocumentRefused(Unreadable[said["reason"]], found=said["found"], limit=said["limit"])
            case "document":
                return Document(said["kind"], said["text"], tuple(said["page_starts"]))
    return None


def _bare_environment() -> dict[str, str]:
    """What Python needs to start, and none of the bot's settings."""
    wanted = ("PATH", "SYSTEMROOT", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
    kept = {name: os.environ[name] for name in wanted if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONHASHSEED": "0"}


# What follows runs in the other process.


def main() -> None:
    """Read a file from stdin within the limits of the first argument; say on stdout what came of it."""
    limits = Limits(**json.loads(sys.argv[1]))
    _limit_this_process(limits)
    try:
        data = sys.stdin.buffer.read(limits.max_bytes + 1)
        document = parsed(data, limits, lambda pages: _say({"is": "pages", "pages": pages}))
        _say({"is": "document", **asdict(document)})
    except DocumentRefused as refused:
        _say({"is": "refused", "reason": refused.reason.name, "found": refused.found, "limit": refused.limit})
    except MemoryError:
        _say({"is": "refused", "reason": Unreadable.TOO_DEMANDING.name, "found": 0, "limit": 0})


def parsed(data: bytes, limits: Limits, on_pages: Callable[[int], object]) -> Document:
    """The text of the file `data`. Raises DocumentRefused, and MemoryError."""
    kind = kind_of(data)
    try:
        match kind:
            case "pdf":
                pages = _unwrapped_pages(data, limits, on_pages)
                document = _joined(pages, limits.max_chars)
            case "docx":
                document = Document(kind, _bounded(_docx_pieces(data), limits.max_chars))
            case _:
                document = Document(kind, _decoded(data))
    except (DocumentRefused, MemoryError):
        raise
    except Exception as error:  # the libraries raise whatever a broken file leads them to
        if type(error).__name__ == "LimitReachedError":
            raise DocumentRefused(Unreadable.TOO_DEMANDING) from error
        raise DocumentRefused(Unreadable.BROKEN) from error
    if len(document.text) > limits.max_chars:
        raise DocumentRefused(Unreadable.TOO_LONG, found=len(document.text), limit=limits.max_chars)
    if not any(unicodedata.category(character)[0] in "LN" for character in document.text):
        raise DocumentRefused(Unreadable.SCANNED if kind == PDF else Unreadable.NO_WORDS)
    if _is_noise(document.text):
        raise DocumentRefused(Unreadable.SCANNED if kind == PDF else Unreadable.OTHER_FORMAT)
    return document


def kind_of(data: bytes) -> str:
    """TEXT, PDF or DOCX, by the file's first bytes. Raises DocumentRefused for all other kinds."""
    if not data.strip(b"\0 \t\r\n"):
        raise DocumentRefused(Unreadable.NO_WORDS)
    if b"%PDF-" in data[:1024]:
        return PDF
    if data.startswith(b"PK\x03\x04"):
        return _kind_of_archive(data)
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):  # OLE: Office before 2007, and locked files since
        is_locked = "EncryptedPackage".encode("utf-16-le") in data
        raise DocumentRefused(Unreadable.ENCRYPTED if is_locked else Unreadable.OLD_WORD)
    if data.startswith(b"{\\rtf"):
        raise DocumentRefused(Unreadable.OTHER_FORMAT)
    return TEXT


def _kind_of_archive(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise DocumentRefused(Unreadable.BROKEN) from error
    if not any(entry.filename == "[Content_Types].xml" for entry in entries) or not any(
        entry.filename.startswith("word/") for entry in entries
    ):
        raise DocumentRefused(Unreadable.OTHER_FORMAT)
    # zipfile never unpacks more of an entry than it announces, so these sums are honest.
    xml_bytes = sum(entry.file_size for entry in entries if entry.filename.endswith((".xml", ".rels")))
    if xml_bytes > MAX_XML_BYTES or sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
        raise DocumentRefused(Unreadable.TOO_DEMANDING)
    return DOCX


def _decoded(data: bytes) -> str:
    """Plain text in UTF-8, UTF-16, UTF-32, GB18030 or Big5, its line ends as line feeds."""
    from charset_normalizer import from_bytes

    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
        if encoding == "utf-8" and "\0" in text:  # UTF-16 of ASCII without a mark decodes as UTF-8 too
            raise UnicodeError
    except UnicodeError:
        text = data.decode(encoding, "replace")
        if not _is_hardly_damaged(text):
            found = from_bytes(data, cp_isolation=ENCODINGS).best()
            if found is None:
                raise DocumentRefused(Unreadable.OTHER_FORMAT) from None
            text = data.decode(found.encoding, "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").strip("\ufeff\n")


def _is_hardly_damaged(text: str) -> bool:
    """Whether only a few bytes of what was decoded to `text` were wrong: cut off at its end, or stray.

    English with a few words in GB18030 has few of them as well, but next to no other character beyond ASCII.
    """
    wrong, zeros = text.count("\ufffd"), text.count("\0")
    right = sum(not character.isascii() for character in text) - wrong
    return wrong <= right and wrong + zeros <= MAX_UNREADABLE_SHARE * len(text)


def _docx_pieces(data: bytes) -> Iterator[str]:
    """A .docx's paragraphs and table rows, in their order, a line each; changes to it are taken as accepted."""
    import docx
    from docx.document import Document as DocxDocument
    from docx.oxml.ns import qn
    from docx.table import Table, _Cell
    from lxml import etree  # type: ignore[import-untyped]

    def lines(container: DocxDocument | _Cell) -> Iterator[str]:
        for block in container.iter_inner_content():
            if isinstance(block, Table):
                for row in block.rows:
                    cells = dict.fromkeys(row.cells)  # a merged cell comes once for each column
                    yield "\t".join(" ".join(lines(cell)) for cell in cells)
            else:
                # Also the runs in links, smart tags and insertions, which `block.text` passes over.
                yield "".join(run.text for run in block._p.xpath(".//w:r"))

    document = docx.Document(io.BytesIO(data))
    etree.strip_elements(document.element, *map(qn, DOCX_LEFT_OUT), with_tail=False)
    etree.strip_tags(document.element, *map(qn, DOCX_WRAPPERS))
    for line in lines(document):
        yield f"{line}\n"


def _unwrapped_pages(data: bytes, limits: Limits, on_pages: Callable[[int], object]) -> Iterator[str]:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    reader = PdfReader(io.BytesIO(data), strict=False)
    if reader.is_encrypted:
        try:
            is_open = bool(reader.decrypt(""))  # many are locked against changes only
        except DependencyError:
            is_open = False
        if not is_open:
            raise DocumentRefused(Unreadable.ENCRYPTED)
    pages = len(reader.pages)
    if pages > limits.max_pages:
        raise DocumentRefused(Unreadable.TOO_MANY_PAGES, found=pages, limit=limits.max_pages)
    on_pages(pages)
    for page in reader.pages:
        yield unwrapped(page.extract_text())


def unwrapped(page: str) -> str:
    """A page's text with the lines joined that a full line broke, so that a sentence stands in one piece."""
    lines = [line.strip() for line in page.splitlines()]
    full = FULL_LINE_SHARE * max(map(len, lines), default=0)
    pieces: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        pieces.append(line)
        if not line or not following or len(line) < full or _SENTENCE_END.search(line):
            pieces.append("\n")
        elif line[-1].isascii() and following[0].isascii():
            pieces.append(" ")
    return "".join(pieces).strip("\n")


def _joined(pages: Iterator[str], max_chars: int) -> Document:
    starts: list[int] = []
    pieces: list[str] = []
    chars = 0
    for page in pages:
        starts.append(chars)
        pieces.append(page if not page or page.endswith("\n") else f"{page}\n")
        chars += len(pieces[-1])
        if chars > max_chars + 1:
            raise DocumentRefused(Unreadable.TOO_LONG, found=0, limit=max_chars)
    return Document(PDF, "".join(pieces).rstrip("\n"), tuple(starts))


def _bounded(pieces: Iterator[str], max_chars: int) -> str:
    kept: list[str] = []
    chars = 0
    for piece in pieces:
        kept.append(piece)
        chars += len(piece)
        if chars > 2 * max_chars:  # it may be blank lines that go again at the end
            raise DocumentRefused(Unreadable.TOO_LONG, found=0, limit=max_chars)
    return "".join(kept).strip("\n")


def _is_noise(text: str) -> bool:
    """Whether too much of `text` is no character that anyone would write."""
    sample = text[:SAMPLE_CHARS]
    noise = sum(
        character == "\ufffd" or (unicodedata.category(character)[0] == "C" and character not in "\t\n\f\u200b\u200d")
        for character in sample
    )
    return noise > MAX_UNREADABLE_SHARE * len(sample)


def _limit_this_process(limits: Limits) -> None:
    """Have the system refuse more memory and more processor time; where it cannot, the parent's clock remains."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for what, limit in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, math.ceil(limits.seconds)),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        with suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
            resource.setrlimit(what, (limit, limit + 1))


def _say(said: dict[str, object]) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
