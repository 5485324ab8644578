"""Files as people and attackers send them, made on the spot: good, broken, hostile; none is kept in the repository."""

import io
import random
import zipfile
import zlib
from dataclasses import dataclass

import docx
from pypdf import PdfReader, PdfWriter

TEXT = "勒布朗·詹姆斯效力于洛杉矶湖人队。\n他身高203厘米，体重113公斤。\n"
TRADITIONAL = "詹姆斯效力於洛杉磯湖人隊。\n他身高203釐米，體重113公斤。\n"
WORD_NAMESPACE = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


@dataclass(frozen=True)
class MadeFile:
    """A file with its name; `reads` says whether its text can be had, None where either would do."""

    name: str
    data: bytes
    reads: bool | None


def pdf(pages: list[str]) -> bytes:
    """A PDF that shows `pages`, a line each; a font without outlines says which character each number stands for."""
    characters = sorted(set("".join(pages)) - {"\n"})
    numbers = {character: place for place, character in enumerate(characters, start=1)}
    pairs = "\n".join(f"<{place:04x}> <{c.encode('utf-16-be').hex()}>" for c, place in numbers.items())
    to_unicode = (
        "/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <0000> <ffff> endcodespacerange\n"
        f"{len(numbers)} beginbfchar\n{pairs}\nendbfchar endcmap"
    )
    kids = " ".join(f"{6 + 2 * place} 0 R" for place in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type0 /BaseFont /F /Encoding /Identity-H "
        b"/DescendantFonts [4 0 R] /ToUnicode 5 0 R >>",
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /F /DW 1000 "
        b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>",
        stream(to_unicode.encode()),
    ]
    for place, page in enumerate(pages):
        shown = "\n".join(
            f"<{''.join(f'{numbers[character]:04x}' for character in line)}> Tj 0 -14 Td" for line in page.split("\n")
        )
        resources = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 595 842]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {resources} /Contents {7 + 2 * place} 0 R >>".encode())
        objects.append(stream(f"BT /F1 12 Tf 50 800 Td {shown} ET".encode()))
    return numbered(objects)


def stream(data: bytes, entries: str = "") -> bytes:
    return f"<< /Length {len(data)} {entries} >>\nstream\n".encode() + data + b"\nendstream"


def numbered(objects: list[bytes], root: int = 1) -> bytes:
    """A PDF of these objects, numbered from 1."""
    body = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    start = len(body)
    body += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    body += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    body += f"trailer << /Size {len(objects) + 1} /Root {root} 0 R >>\nstartxref\n{start}\n%%EOF".encode()
    return bytes(body)


def encrypted_pdf(password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf([TEXT]))))
    writer.encrypt(password, owner_password="owner", algorithm="RC4-128")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def scanned_pdf(pages: int = 2) -> bytes:
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(595, 842)
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def word(*paragraphs: str, table: list[list[str]] | None = None) -> bytes:
    """A .docx with these paragraphs, and a table below them."""
    document = docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    if table:
        made = document.add_table(len(table), len(table[0]))
        for row, texts in zip(made.rows, table, strict=True):
            for cell, text in zip(row.cells, texts, strict=True):
                cell.text = text
    written = io.BytesIO()
    document.save(written)
    return written.getvalue()


def word_of(body: bytes, prolog: bytes = b"") -> bytes:
    """A .docx whose document.xml has `body` in it, whatever that is."""
    document = prolog + f'<w:document xmlns:w="{WORD_NAMESPACE}"><w:body>'.encode() + body + b"</w:body></w:document>"
    return repacked(word("x"), {"word/document.xml": document})


def repacked(archive: bytes, changed: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name, old.read(name)))
    return written.getvalue()


def archive(**entries: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in entries.items():
            new.writestr(name, data)
    return written.getvalue()


def good_files() -> list[MadeFile]:
    encodings = ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
    files = [MadeFile(f"{name}.txt", TEXT.encode(name), True) for name in encodings]
    files += [MadeFile(f"{name}-long.txt", (TEXT * 300).encode(name), True) for name in encodings]
    files += [MadeFile(f"{name}.md", TRADITIONAL.encode(name), True) for name in ("big5", "gb18030", "utf-16")]
    files += [MadeFile(f"{pages}.pdf", pdf([TEXT] * pages), True) for pages in (1, 2, 9, 40)]
    files += [MadeFile(f"{number}.docx", word(*[TEXT] * number), True) for number in (1, 9, 400)]
    files += [
        MadeFile("table.docx", word(TEXT, table=[["姓名", "身高"], ["詹姆斯", "203厘米"]]), True),
        MadeFile("locked against changes only.pdf", encrypted_pdf(""), True),
        MadeFile("a pdf.txt", pdf([TEXT]), True),
        MadeFile("a text.pdf", TEXT.encode(), True),
        MadeFile("a word.doc", word(TEXT), True),
        MadeFile("no extension", TEXT.encode("gb18030"), True),
        MadeFile("名" * 200 + ".txt", TEXT.encode(), True),
        MadeFile("<b>&.txt", TEXT.encode(), True),
    ]
    return files


def hostile_files() -> list[MadeFile]:
    deep = b"<w:tbl><w:tr><w:tc>"
    laughs = b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12))
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources 5 0 R >>"
    catalog = b"<< /Type /Catalog /Pages 2 0 R >>"
    pages = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    bomb = zlib.compress(b"BT (a) Tj ET " * 20_000_000, 9)
    itself = stream(b"/X Do", "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources 5 0 R")
    made = {
        "zip bomb.docx": word_of(b"\0" * 150_000_000),
        "zip bomb of text.docx": word_of(b"<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 3_000_000),
        "many bytes.docx": repacked(word("x"), {"word/styles.xml": b" " * 250_000_000}),
        "deep.docx": word_of(deep * 5_000 + b"</w:tc></w:tr></w:tbl>" * 5_000),
        "wide.docx": word_of(
            b"<w:tbl><w:tblGrid><w:gridCol/></w:tblGrid><w:tr><w:tc><w:tcPr><w:gridSpan w:val='2000000000'/></w:tcPr>"
            b"<w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
        ),
        "laughs.docx": word_of(
            b"<w:p><w:r><w:t>&a11;</w:t></w:r></w:p>", b'<!DOCTYPE d [<!ENTITY a0 "ha">' + laughs + b"]>"
        ),
        "file of the machine.docx": word_of(
            b"<w:p><w:r><w:t>&x;</w:t></w:r></w:p>", b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        ),
        "many objects.pdf": numbered([catalog, pages, page, stream(b""), b"<< >>", *[b"<<>>"] * 350_000]),
        "many objects and no table.pdf": b"%PDF-1.4\n"
        + b"".join(b"%d 0 obj\n<<>>\nendobj\n" % n for n in range(1, 600_000)),
        "endless tree.pdf": numbered([catalog, b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>"]),
        "two in a ring.pdf": numbered(
            [catalog, b"<< /Type /Pages /Kids [3 0 R] >>", b"<< /Type /Pages /Kids [2 0 R 2 0 R] >>"]
        ),
        "deep tree.pdf": numbered(
            [catalog, *[b"<< /Type /Pages /Kids [%d 0 R] >>" % n for n in range(3, 20_000)], b"<< /Type /Pages >>"]
        ),
        "doubling tree.pdf": numbered(
            [catalog, *[b"<< /Type /Pages /Kids [%d 0 R %d 0 R] >>" % (n, n) for n in range(3, 40)], page]
        ),
        "a billion pages.pdf": numbered([catalog, b"<< /Type /Pages /Kids [] /Count 1000000000 >>"]),
        "flate bomb.pdf": numbered([catalog, pages, page, stream(bomb, "/Filter /FlateDecode"), b"<< >>"]),
        "form in itself.pdf": numbered(
            [catalog, pages, page, stream(b"/X Do"), b"<< /XObject << /X 6 0 R >> >>", itself]
        ),
        "xref in a ring.pdf": b"%PDF-1.7\nxref\n0 1\n0000000000 65535 f \n"
        b"trailer << /Prev 9 /Size 1 >>\nstartxref\n9\n%%EOF",
        "open brackets.pdf": b"%PDF-1.7\n1 0 obj\n" + b"[" * 2_000_000,
        "open dictionaries.pdf": numbered([b"<< /Type /Catalog /Pages " + b"<</A " * 100_000]),
    }
    return [MadeFile(name, data, None) for name, data in made.items()]


def unusable_files() -> list[MadeFile]:
    draws = random.Random(7)
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + draws.randbytes(5_000)
    made = {
        "empty.txt": b"",
        "blank.txt": b" \n\t " * 100,
        "zeros.txt": b"\0" * 10_000,
        "symbols.txt": "😀。？！".encode(),
        "locked.pdf": encrypted_pdf("secret"),
        "scan.pdf": scanned_pdf(),
        "old.doc": ole,
        "locked.docx": ole + "EncryptedPackage".encode("utf-16-le"),
        "book.epub": archive(mimetype=b"application/epub+zip"),
        "table.xlsx": archive(**{"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<workbook/>"}),
        "no word.docx": archive(**{"[Content_Types].xml": b"<Types/>", "word/other.xml": b"<other/>"}),
        "rich.rtf": rb"{\rtf1\ansi hello}",
        "picture.png": b"\x89PNG\r\n\x1a\n" + draws.randbytes(20_000),
        "picture.txt": b"\xff\xd8\xff\xe0\0\x10JFIF" + draws.randbytes(20_000),
        "program.docx": b"MZ\x90\0" + draws.randbytes(20_000),
        "packed.gz": b"\x1f\x8b\x08\0" + draws.randbytes(20_000),
        "only a head.pdf": b"%PDF-1.7\n",
        "only a head.docx": b"PK\x03\x04",
        "noise.txt": draws.randbytes(50_000),
        "control.txt": bytes(range(1, 9)) * 500 + b"a",
        "too long.txt": (TEXT * 10_000).encode(),
        "too many pages.pdf": scanned_pdf(700),
    }
    return [MadeFile(name, data, False) for name, data in made.items()]


def broken_files(number: int) -> list[MadeFile]:
    """Good files with their ends cut off, or bytes in them changed."""
    draws = random.Random(8)
    good = [file for file in good_files() if len(file.data) > 20]
    files = []
    for count in range(number):
        file = draws.choice(good)
        data = bytearray(file.data)
        if count % 2:
            del data[draws.randrange(1, len(data)) :]
        else:
            for _ in range(draws.randrange(1, 40)):
                data[draws.randrange(len(data))] = draws.randrange(256)
        files.append(MadeFile(f"{count} {file.name[:40]}", bytes(data), None))
    return files


def two_hundred_files() -> list[MadeFile]:
    files = good_files() + hostile_files() + unusable_files()
    return files + broken_files(200 - len(files))
