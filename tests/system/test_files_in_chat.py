"""From a text to an answer, on Telegram: files, pastes in parts, several texts a chat, topics, replies, floods."""

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import psutil
import pytest

from bot.errors import Unreadable
from bot.handlers.files import REASONS
from bot.texts import CHINESE, texts_in
from tests.made_files import TEXT, encrypted_pdf, pdf, scanned_pdf, two_hundred_files, word
from tests.system.bot_api_server import BOT, BotApiServer, Call, is_sent
from tests.system.bot_process import BotProcess, started
from tests.system.people import ANSWER, PARAGRAPH, TEAM, Person, in_group, private_chat, telegram

ZH = texts_in(CHINESE)
HEIGHT = "他身高多少？"
MAX_GROWTH_BYTES = 400_000_000
LIMITS = {"FILE_SECONDS": "6", "MAX_FILE_PAGES": "600"}
FLOOD = 300


@pytest.fixture(scope="module")
def bot(server: BotApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotProcess]:
    with started(tmp_path_factory.mktemp("documents"), **telegram(server), **LIMITS) as bot:
        yield bot
        assert bot.stop() == 0
        assert "Traceback" not in bot.output()


@pytest.fixture
def alice(server: BotApiServer, bot: BotProcess) -> Person:
    return private_chat(server, "zh-hans")


@pytest.fixture
def group(alice: Person) -> Person:
    return in_group(alice)


def sends_file(person: Person, name: str, data: bytes | int, announced_bytes: int | None = None, **more: Any) -> Call:
    """Send a file; returns the one message that the bot sent for it, once that shows how it ended."""
    document = person.server.document(name, data, announced_bytes)
    message_id = person.sends(document=document, **more)
    return ended(person, message_id)


def ended(person: Person, message_id: int) -> Call:
    """The reply to a file, when it no longer says that the file is being read."""
    reply_id = reply_id_to(person, message_id)
    person.server.wait_for(lambda call: is_edit(call, reply_id) and not call.text.startswith("正在读取"))
    return shown(person, reply_id)


def reply_id_to(person: Person, message_id: int) -> int:
    """The id of the bot's message that replies to `message_id`."""
    person.server.reply_to(message_id)
    for reply_id, parameters in list(person.server.messages.items()):
        call = Call("", parameters, 0, 0)
        if "reply_parameters" in parameters and call.replies_to == message_id:
            return reply_id
    edits = [call.parameters["message_id"] for call in person.server.calls if call.method == "editMessageText"]
    sent = [call for call in person.server.calls if is_sent(call) and call.replies_to == message_id]
    return next(
        reply_id for reply_id in edits if person.server.messages[reply_id]["chat_id"] == sent[0].parameters["chat_id"]
    )


def shown(person: Person, message_id: int) -> Call:
    """A message of the bot as it stands now."""
    return Call("", person.server.messages[message_id], 0, 0)


def is_edit(call: Call, message_id: int) -> bool:
    return call.method == "editMessageText" and call.parameters["message_id"] == message_id and call.status == 200


def buttons(call: Call) -> dict[str, str]:
    """The data of each button, by what it shows."""
    rows = call.parameters.get("reply_markup", {}).get("inline_keyboard", [])
    return {button["text"]: button["callback_data"] for row in rows for button in row}


def asks_back(call: Call, server: BotApiServer) -> dict[str, Any]:
    """A message by which the bot asks for something, as the client has it when a user replies to it."""
    assert call.parameters["reply_markup"]["force_reply"] is True
    assert call.message_id is not None
    return server.as_replied_to(call.message_id)


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("utf8.txt", TEXT.encode()),
            ("gb.txt", TEXT.encode("gb18030")),
            ("utf16.md", TEXT.encode("utf-16")),
            ("word.docx", word(TEXT)),
            ("report.pdf", pdf([TEXT])),
        ],
    )
    def test_a_file_alone_in_a_private_chat_becomes_its_paragraph(self, alice: Person, name: str, data: bytes) -> None:
        assert sends_file(alice, name, data).text.startswith(f"已读取 {name.split('.')[0]}，")
        assert "詹姆斯效力于洛杉矶湖人队。\n他身高203厘米" in alice.asks("/context")
        assert ANSWER.match(alice.asks(HEIGHT))

    def test_progress_is_shown_by_editing_one_message(self, alice: Person) -> None:
        ending = sends_file(alice, "长.pdf", pdf([TEXT] * 120))
        assert "120 页" in ending.text
        calls = [call for call in alice.server.calls if call.parameters.get("chat_id") == alice.chat["id"]]
        assert [(call.method, call.text.splitlines()[0]) for call in calls] == [
            ("sendMessage", "正在读取文件…"),
            ("editMessageText", "正在读取 120 页…"),
            ("editMessageText", f"已读取 长，120 页，共 {len(TEXT) * 120 - 1:,} 字。"),
        ]

    def test_in_a_group_a_file_counts_with_the_command_as_caption_or_reply(self, group: Person) -> None:
        document = group.server.document("不要.txt", "没有人要读它。".encode())
        group.sends(document=document)
        ending = sends_file(group, "有.txt", TEXT.encode(), caption=f"/context@{BOT['username']} 名字 <1>")
        assert ending.text.startswith("已读取 名字 <1>，")
        reply = group.says("/context", reply_to_message=group.message(document=document))
        assert ended(group, reply).text.startswith("已读取 不要，")
        assert group.asks("/context").endswith("没有人要读它。")

    @pytest.mark.parametrize(
        ("name", "data", "told"),
        [
            ("locked.pdf", encrypted_pdf("x"), "密码"),
            ("scan.pdf", scanned_pdf(), "扫描件"),
            ("many.pdf", scanned_pdf(601), "共 601 页，最多 600 页"),
            ("old.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\1" * 999, "另存为 .docx"),
            ("book.epub", b"PK\x03\x04", "损坏"),
            ("picture.txt", b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(256)) * 9, ".txt、.md、.pdf、.docx"),
            ("long.txt", ("长" * 100_001).encode(), "最多 100,000 字"),
        ],
    )
    def test_what_cannot_be_read_is_told_by_what_is_wrong(
        self, alice: Person, name: str, data: bytes, told: str
    ) -> None:
        assert told in sends_file(alice, name, data).text
        assert "本聊天还没有设置段落" in alice.asks("/context")

    def test_a_picture_is_told_which_files_work(self, alice: Person) -> None:
        photo = [{"file_id": "p", "file_unique_id": "p", "width": 9, "height": 9}]
        assert ".pdf" in alice.server.reply_to(alice.sends(photo=photo)).text

    def test_300_megabytes_of_zeros_announced_as_3_kilobytes_are_not_swallowed(
        self, alice: Person, bot: BotProcess
    ) -> None:
        before = psutil.Process(bot.process.pid).memory_info().rss
        assert "最多 20.0 MB" in sends_file(alice, "small.txt", 300_000_000, announced_bytes=3_000).text
        assert max(alice.server.delivered.values()) < 100_000_000
        assert psutil.Process(bot.process.pid).memory_info().rss - before < MAX_GROWTH_BYTES

    def test_a_file_that_is_not_delivered_is_told(self, alice: Person) -> None:
        lost = alice.server.document("lost.txt", b"")
        del alice.server.files[lost["file_id"]]
        assert "再发送一次" in ended(alice, alice.sends(document=lost)).text

    def test_of_200_files_each_sender_gets_one_clear_sentence_and_the_bot_stays_small(
        self, server: BotApiServer, bot: BotProcess
    ) -> None:
        files = two_hundred_files()
        assert len(files) == 200
        process = psutil.Process(bot.process.pid)
        before = process.memory_info().rss
        senders = [private_chat(server, "zh") for _ in files]
        sent = [
            sender.sends(document=server.document(file.name, file.data))
            for sender, file in zip(senders, files, strict=True)
        ]
        refusals = [ZH.gettext(text).split("{")[0] for text in REASONS.values()]
        for sender, file, message_id in zip(senders, files, sent, strict=True):
            ending = ended(sender, message_id).text
            is_read = ending.startswith("已读取")
            assert is_read is file.reads or file.reads is None, f"{file.name}: {ending}"
            assert is_read or ending.startswith(tuple(refusals)), f"{file.name}: {ending}"
            of_sender = [call for call in server.calls if is_sent(call) and call.replies_to == message_id]
            assert len(of_sender) == 1, file.name
            assert process.memory_info().rss - before < MAX_GROWTH_BYTES, file.name
        assert process.children() == []
        assert "etc/passwd" not in bot.output()


class TestPastes:
    def test_the_parts_of_one_paste_are_joined_and_what_was_taken_is_told(self, alice: Person) -> None:
        whole = "".join(f"第{number}句，说的是别的事。" for number in range(900)) + PARAGRAPH
        first = "/context " + whole[: 4096 - len("/context ")]
        rest = whole[4096 - len("/context ") :]
        parts = [first, *(rest[place : place + 4096] for place in range(0, len(rest), 4096))]
        now = int(time.time())
        sent = [alice.says(part, date=now + place) for place, part in enumerate(parts)]
        alice.server.wait_for(
            lambda call: (
                call.method == "editMessageText"
                and call.parameters["chat_id"] == alice.chat["id"]
                and f"{len(parts)} 条消息" in call.text
                and f"{len(whole):,} 字" in call.text
            )
        )
        replies = [
            call for call in alice.server.calls if is_sent(call) and call.parameters["chat_id"] == alice.chat["id"]
        ]
        assert [reply.replies_to for reply in replies] == sent[:1]
        assert f"共 {len(whole):,} 字" in alice.asks("/context")

    def test_a_question_soon_after_a_short_paragraph_is_a_question(self, alice: Person) -> None:
        now = int(time.time())
        alice.says(f"/context {PARAGRAPH}", date=now)
        assert ANSWER.match(alice.asks(TEAM, date=now))

    def test_a_question_some_seconds_after_a_long_paragraph_is_a_question(self, alice: Person) -> None:
        now = int(time.time())
        alice.says(f"/context {PARAGRAPH * 45}"[:4096], date=now)
        assert ANSWER.match(alice.asks(TEAM, date=now + 10))


class TestSeveralTexts:
    def test_they_are_listed_and_can_be_switched_renamed_and_deleted(self, alice: Person) -> None:
        alice.asks("/context 第一篇说的是春天。")
        alice.asks("/context 第二篇说的是秋天。")
        listing = alice.says("/contexts")
        assert "这里保存的段落：2 个" in alice.server.reply_to(listing).text
        list_id = reply_id_to(alice, listing)

        label = next(text for text in buttons(shown(alice, list_id)) if "第一篇" in text)
        acknowledged = alice.server.tap(alice.user, list_id, buttons(shown(alice, list_id))[label], alice.chat)
        assert acknowledged.parameters["text"].startswith("从现在起读：第一篇")
        assert "春天" in alice.asks("/context")
        assert "✅ 1. 第一篇" in shown(alice, list_id).text

        back = alice.says("/context")
        alice.server.reply_to(back)
        back_id = reply_id_to(alice, back)
        [switch] = [data for text, data in buttons(shown(alice, back_id)).items() if text.startswith("⇄ 第二篇")]
        alice.server.tap(alice.user, back_id, switch, alice.chat)
        assert "秋天" in alice.asks("/context")

        rename = buttons(shown(alice, list_id))["✏️"]
        alice.server.tap(alice.user, list_id, rename, alice.chat)
        prompt = alice.server.wait_for(
            lambda call: is_sent(call) and call.parameters["chat_id"] == alice.chat["id"] and "新名字" in call.text
        )
        prompted = {**asks_back(prompt, alice.server), "chat": alice.chat}
        assert alice.asks("四季 <b>", reply_to_message=prompted).startswith("它现在叫 四季 <b>")
        listing = alice.says("/contexts")
        assert "四季 <b>" in alice.server.reply_to(listing).text
        list_id = reply_id_to(alice, listing)

        delete = next(data for text, data in buttons(shown(alice, list_id)).items() if text == "🗑")
        alice.server.tap(alice.user, list_id, delete, alice.chat)
        alice.server.wait_for(lambda call: is_edit(call, list_id) and "要彻底删除" in call.text)
        alice.server.tap(alice.user, list_id, buttons(shown(alice, list_id))["删除"], alice.chat)
        alice.server.wait_for(lambda call: is_edit(call, list_id) and "保存的段落：1 个" in call.text)

    def test_many_are_paged(self, alice: Person) -> None:
        for number in range(7):
            alice.asks(f"/context 第{number}篇。")
        listing = alice.says("/contexts")
        alice.server.reply_to(listing)
        list_id = reply_id_to(alice, listing)
        assert "◀" not in buttons(shown(alice, list_id))
        alice.server.tap(alice.user, list_id, buttons(shown(alice, list_id))["▶"], alice.chat)
        page = alice.server.wait_for(lambda call: is_edit(call, list_id) and "7. 第0篇" in call.text)
        assert "▶" not in buttons(page)

    def test_buttons_reach_nothing_of_another_chat(self, alice: Person, server: BotApiServer) -> None:
        alice.asks("/context 爱丽丝的秘密。")
        listing = alice.says("/contexts")
        alice.server.reply_to(listing)
        data = next(iter(buttons(shown(alice, reply_id_to(alice, listing))).values()))
        eve = private_chat(server, "zh")
        mine = eve.says("/contexts")
        server.reply_to(mine)
        for action in "srdx":
            forged = re.sub("library:.:", f"library:{action}:", data)
            acknowledged = server.tap(eve.user, reply_id_to(eve, mine), forged, eve.chat)
            assert acknowledged.parameters["text"] == "这段文字已经不在了。"
        assert not any("秘密" in call.parameters.get("text", "") for call in server.calls if is_to(call, eve))
        assert "秘密" in alice.asks("/context")

    def test_a_list_that_telegram_no_longer_hands_out_is_acknowledged(self, alice: Person) -> None:
        acknowledged = alice.server.tap(alice.user, 5, "library:l:0:0", alice.chat, date=0)
        assert acknowledged.parameters["text"] == "这个列表太旧了。请发送 /contexts 重新列出。"

    def test_each_topic_of_a_group_has_its_own(self, group: Person) -> None:
        topics = [{"message_thread_id": number, "is_topic_message": True} for number in (11, 12)]
        for number, topic in enumerate(topics):
            group.asks(f"/context 话题{number}的文字。", **topic)
        for number, topic in enumerate(topics):
            assert f"话题{number}的文字" in group.asks("/context", **topic)
        assert "本聊天还没有设置段落" in group.asks("/context")
        assert "还没有设置段落" not in group.asks(f"/ask {TEAM}", **topics[0])


class TestConversation:
    def test_a_reply_to_an_answer_asks_again_about_the_same_text(self, group: Person) -> None:
        group.asks("/context 甲队有五个人。")
        question = group.says("/ask 甲队有几个人？")
        group.server.reply_to(question)
        answer_id = reply_id_to(group, question)
        group.asks("/context 乙队有七个人。")
        answer = group.message(text="…", **{"from": BOT, "message_id": answer_id})
        reply = group.asks("几个人在甲队？", reply_to_message=answer)
        assert ANSWER.match(reply)
        assert "乙" not in reply

    def test_replies_to_other_messages_in_a_group_are_for_people(self, group: Person) -> None:
        group.asks(f"/context {PARAGRAPH}")
        other = group.message(text="…", **{"from": BOT})
        ignored = group.says("谢谢！", reply_to_message=other)
        group.asks("/status")
        assert not any(is_sent(call) and call.replies_to == ignored for call in group.server.calls)

    def test_ask_without_a_question_asks_for_it(self, group: Person) -> None:
        group.asks(f"/context {PARAGRAPH}")
        prompt = group.server.reply_to(group.says("/ask"))
        assert prompt.text.endswith("您想问什么？请回复这条消息，写出问题。")
        assert ANSWER.match(group.asks(TEAM, reply_to_message={**asks_back(prompt, group.server), "chat": group.chat}))

    def test_context_alone_asks_for_the_paragraph_and_takes_the_reply(self, group: Person) -> None:
        prompt = group.server.reply_to(group.says("/context"))
        assert prompt.text.endswith("请回复这条消息，发来文字或文件（.txt、.md、.pdf、.docx）。")
        assert prompt.parameters["reply_markup"] == {"force_reply": True, "selective": True}
        replied_to = {**asks_back(prompt, group.server), "chat": group.chat}
        assert "段落已设置" in group.asks(PARAGRAPH, reply_to_message=replied_to)
        assert ANSWER.match(group.asks(f"/ask {TEAM}"))

    def test_a_flood_is_slowed_down_once_and_politely_and_others_are_not(
        self, alice: Person, server: BotApiServer
    ) -> None:
        for _ in range(FLOOD):
            alice.says("/ask")
        other = private_chat(server, "zh")
        assert other.asks("/status").startswith("模型")
        server.wait_until_confirmed()
        server.wait_for(lambda call: is_sent(call) and is_to(call, alice) and "请等 20 秒" in call.text)
        assert other.asks("/status").startswith("模型")
        sent = [call for call in server.calls if is_sent(call) and is_to(call, alice)]
        assert len(sent) < FLOOD
        notices = [call.seconds for call in sent if "请等 20 秒" in call.text]
        assert all(later - earlier > 19 for earlier, later in pairwise(notices))


def is_to(call: Call, person: Person) -> bool:
    return bool(call.parameters.get("chat_id") == person.chat["id"])


def test_every_reason_has_a_sentence() -> None:
    assert set(REASONS) == set(Unreadable)
