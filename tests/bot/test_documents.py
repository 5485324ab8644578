"""Files: told apart by what they hold, read within limits, and refused with the reason that is true."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.documents import DOCX, PDF, Document, Limits, parsed, read_document, unwrapped
from bot.errors import DocumentRefused, Unreadable
from bot.transport import PAUSE_SECONDS, Pace, Verdict
from tests.made_files import TEXT, TRADITIONAL, encrypted_pdf, pdf, scanned_pdf, word, word_of

LIMITS = Limits(max_bytes=5_000_000, max_pages=50, max_chars=10_000, seconds=20, memory_bytes=512 * 2**20)


def read_here(data: bytes, **limits: int) -> Document:
    return parsed(data, dataclasses.replace(LIMITS, **limits), lambda pages: None)


def reason_of(data: bytes, **limits: int) -> Unreadable:
    with pytest.raises(DocumentRefused) as caught:
        read_here(data, **limits)
    return caught.value.reason


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("repeated", [1, 300])
def test_a_text_is_read_in_the_encodings_that_chinese_is_written_in(encoding: str, repeated: int) -> None:
    text = (TEXT * repeated).replace("\n", "\r\n")
    assert read_here(text.encode(encoding), max_chars=99_999).text == (TEXT * repeated).rstrip("\n")


def test_big5_is_told_from_gb18030() -> None:
    assert read_here(TRADITIONAL.encode("big5")).text == TRADITIONAL.rstrip("\n")


@pytest.mark.parametrize(
    "damaged",
    [
        (TEXT * 9).encode().rstrip()[:-1],
        b"\xef\xbb\xbf" + (TEXT * 9).encode().rstrip()[:-1],
        (TEXT * 9).encode() + b"\xff",
        (TEXT * 9).encode() + b"\0",
        (TEXT * 9 + "\n").encode("utf-16") + b"a",
    ],
)
def test_a_text_with_a_wrong_byte_or_two_is_read_all_the_same(damaged: bytes) -> None:
    assert read_here(damaged).text.startswith((TEXT * 9).rstrip("\n")[:-1])


@pytest.mark.parametrize(("name", "encoding"), [("湖人队", "gb18030"), ("湖人隊", "big5")])
def test_a_few_chinese_words_in_an_english_text_are_no_wrong_bytes(name: str, encoding: str) -> None:
    text = f"James plays for the Lakers ({name}). " + "He was born in Akron and is 203 cm tall. " * 40
    assert read_here(text.encode(encoding)).text == text


def test_a_word_file_keeps_its_order_and_a_merged_cell_comes_once() -> None:
    data = word("第一段。", "第二段。", table=[["姓名", "身高"], ["詹姆斯", "203厘米"]])
    assert read_here(data) == Document(DOCX, "第一段。\n第二段。\n姓名\t身高\n詹姆斯\t203厘米")
    merged = (
        b"<w:tbl><w:tblGrid><w:gridCol/><w:gridCol/></w:tblGrid><w:tr><w:tc><w:tcPr><w:gridSpan w:val='2'/></w:tcPr>"
        b"<w:p><w:r><w:t>both</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
    )
    assert read_here(word_of(merged)).text == "both"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<w:p>{他生于}<w:smartTag w:element='chsdate'>{1984年}</w:smartTag>{。}</w:p>", "他生于1984年。"),
        ("<w:p><w:smartTag><w:smartTag>{203}</w:smartTag>{厘米}</w:smartTag></w:p>", "203厘米"),
        (
            "<w:p>{金额为}<w:ins>{三}</w:ins><w:del>{二}<w:r><w:delText>二</w:delText></w:r></w:del>{元}</w:p>",
            "金额为三元",
        ),
        ("<w:p><w:moveFrom>{甲}</w:moveFrom>{乙}<w:moveTo>{甲}</w:moveTo></w:p>", "乙甲"),
        ("<w:p>{甲方：}<w:sdt><w:sdtPr/><w:sdtContent>{某公司}</w:sdtContent></w:sdt></w:p>", "甲方：某公司"),
        ("<w:p>{一}</w:p><w:sdt><w:sdtContent><w:p>{二}</w:p></w:sdtContent></w:sdt><w:p>{三}</w:p>", "一\n二\n三"),
        ("<w:ins><w:sdt><w:sdtContent><w:p>{一}</w:p></w:sdtContent></w:sdt></w:ins>", "一"),
        (
            "<w:tbl><w:tblGrid><w:gridCol/><w:gridCol/></w:tblGrid><w:tr><w:tc><w:p>{姓名}</w:p></w:tc>"
            "<w:sdt><w:sdtContent><w:tc><w:p>{身高}</w:p></w:tc></w:sdtContent></w:sdt></w:tr></w:tbl>",
            "姓名\t身高",
        ),
        ("<w:p><w:ins><w:r><w:t>一</w:t><w:br/><w:t>二</w:t><w:tab/><w:t>三</w:t></w:r></w:ins></w:p>", "一\n二\t三"),
        ("<w:p><w:hyperlink><w:smartTag>{链接}</w:smartTag></w:hyperlink></w:p>", "链接"),
        ("<w:p><w:r><w:ruby><w:rt>{hàn}</w:rt><w:rubyBase>{汉}</w:rubyBase></w:ruby></w:r>{字}</w:p>", "汉字"),
    ],
)
def test_a_word_file_loses_no_word_of_what_is_shown(body: str, text: str) -> None:
    """`{…}` stands for a run of text."""
    runs = body.replace("{", "<w:r><w:t>").replace("}", "</w:t></w:r>")
    assert read_here(word_of(runs.encode())).text == text


def test_a_pdf_tells_where_its_pages_begin() -> None:
    document = read_here(pdf(["第一页。", "", "第三页\n到此为止。"]))
    assert document == Document(PDF, "第一页。\n第三页\n到此为止。", (0, 5, 5))
    assert document.text[document.page_starts[2] :].startswith("第三页")


def test_lines_that_were_full_are_joined_and_others_are_not() -> None:
    page = "标题\n他身高203厘米，体重113公斤，司职小前\n锋，出生于俄亥俄州阿克伦市，现效力于洛杉\n矶湖人队。\n下一段。"
    assert unwrapped(page) == (
        "标题\n他身高203厘米，体重113公斤，司职小前锋，出生于俄亥俄州阿克伦市，现效力于洛杉矶湖人队。\n下一段。"
    )
    assert unwrapped("He plays for the\nLos Angeles Lakers") == "He plays for the Los Angeles Lakers"
    assert unwrapped("") == ""


@given(st.text(st.sampled_from("文字a 。\n"), max_size=60))
def test_joining_lines_loses_no_character(page: str) -> None:
    assert "".join(unwrapped(page).split()) == "".join(page.split())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Unreadable.NO_WORDS),
        (b"\0" * 99, Unreadable.NO_WORDS),
        ("😀。".encode(), Unreadable.NO_WORDS),
        (encrypted_pdf("secret"), Unreadable.ENCRYPTED),
        (scanned_pdf(), Unreadable.SCANNED),
        (scanned_pdf(51), Unreadable.TOO_MANY_PAGES),
        (b"%PDF-1.7\n", Unreadable.BROKEN),
        (b"PK\x03\x04", Unreadable.BROKEN),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Unreadable.OLD_WORD),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), Unreadable.ENCRYPTED),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, Unreadable.OTHER_FORMAT),
        (rb"{\rtf1 a}", Unreadable.OTHER_FORMAT),
        (("长" * 10_001).encode(), Unreadable.TOO_LONG),
        (pdf(["长" * 500] * 30), Unreadable.TOO_LONG),
        (word(*["长" * 500] * 50), Unreadable.TOO_LONG),
        (word_of(b"<w:p/>" * 6_000_000), Unreadable.TOO_DEMANDING),
    ],
)
def test_the_reason_of_a_refusal_is_the_true_one(data: bytes, reason: Unreadable) -> None:
    assert reason_of(data) is reason


def test_a_pdf_that_is_locked_against_changes_only_is_read() -> None:
    assert "湖人队" in read_here(encrypted_pdf("")).text


async def test_another_process_reads_and_tells_the_pages_first() -> None:
    told: list[int] = []

    async def on_pages(pages: int) -> None:
        told.append(pages)

    document = await read_document(pdf([TEXT, TEXT]), LIMITS, on_pages)
    assert (document.kind, len(document.page_starts), told) == (PDF, 2, [2])


async def refusal(data: bytes, limits: Limits) -> DocumentRefused:
    async def on_pages(pages: int) -> None:
        pass

    with pytest.raises(DocumentRefused) as caught:
        await read_document(data, limits, on_pages)
    return caught.value


async def test_a_file_that_takes_too_long_is_given_up() -> None:
    endless = b"%PDF-1.4\n" + b"".join(b"%d 0 obj\n<<>>\nendobj\n" % number for number in range(1, 600_000))
    limits = dataclasses.replace(LIMITS, max_bytes=20_000_000, seconds=1)
    assert (await refusal(endless, limits)).reason is Unreadable.TOO_SLOW


async def test_a_file_that_takes_too_much_memory_is_given_up() -> None:
    wide = word_of(
        b"<w:tbl><w:tblGrid><w:gridCol/></w:tblGrid><w:tr><w:tc><w:tcPr><w:gridSpan w:val='2000000000'/></w:tcPr>"
        b"<w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
    )
    assert (await refusal(wide, LIMITS)).reason is Unreadable.TOO_DEMANDING


async def test_a_file_that_is_too_large_is_not_looked_at() -> None:
    refused = await refusal(b"a" * 11, dataclasses.replace(LIMITS, max_bytes=10))
    assert (refused.reason, refused.limit) == (Unreadable.TOO_LARGE, 10)


def test_a_sender_may_go_as_fast_as_is_allowed_and_is_told_once_when_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("bot.transport.monotonic", lambda: now)
    pace = Pace(60)
    assert [pace.take(1) for _ in range(62)] == [Verdict.TAKEN] * 60 + [Verdict.TOO_FAST, Verdict.PAUSED]
    assert pace.take(2) is Verdict.TAKEN
    now += PAUSE_SECONDS
    assert [pace.take(1) for _ in range(21)] == [Verdict.TAKEN] * 20 + [Verdict.TOO_FAST]
    now += 3600
    assert {pace.take(1) for _ in range(60)} == {Verdict.TAKEN}
