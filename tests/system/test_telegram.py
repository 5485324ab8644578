"""The real program talks to a Bot API server: what users and operators see, on bad input and bad days too."""

import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.bot_api_server import BOT, TOKEN, BotApiServer, Fault, is_sent
from tests.system.bot_process import ROOT, BotProcess, started
from tests.system.people import ANSWER, PARAGRAPH, TEAM, Person, in_group, is_to, private_chat, telegram

ADMIN_ID = 777
SECRET = TOKEN.partition(":")[2]
ANSWER_HTML = re.compile(
    r"<b>(.+)</b>\n\n<blockquote>(.*)<b><u>\1</u></b>(.*)</blockquote>\n"
    r"第 1 段 · 置信度：[高低中等]+（(?:&[lg]t;)?\d+%）",
    re.DOTALL,
)


@pytest.fixture(scope="module")
def bot(server: BotApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotProcess]:
    """One bot for many tests; everyone writes from a chat of their own."""
    folder = tmp_path_factory.mktemp("telegram")
    with started(folder, **telegram(server), ADMIN_USER_IDS=str(ADMIN_ID), LOG_LEVEL="DEBUG") as bot:
        yield bot
        assert bot.stop() == 0
        assert SECRET not in bot.output()
    assert server.violations == []


@pytest.fixture
def alice(server: BotApiServer, bot: BotProcess) -> Person:
    return private_chat(server, "zh-hans")


@pytest.fixture
def bob(server: BotApiServer, bot: BotProcess) -> Person:
    return private_chat(server, "en-GB")


class TestAsking:
    def test_an_answer_is_bold_with_its_confidence_and_the_sentence_it_stands_in(self, alice: Person) -> None:
        assert "段落已设置" in alice.asks(f"/context {PARAGRAPH}")
        question = alice.says(f"/ask {TEAM}")
        reply = alice.server.reply_to(question)
        shown = ANSWER_HTML.fullmatch(reply.parameters["text"])
        assert shown
        assert f"{shown[2]}{shown[1]}{shown[3]}" in PARAGRAPH
        assert reply.parameters["reply_parameters"]["allow_sending_without_reply"] is True

    def test_a_text_sent_without_a_command_becomes_the_paragraph_at_a_button(self, alice: Person) -> None:
        pasted = alice.says(PARAGRAPH)
        told = alice.server.reply_to(pasted)
        assert told.text.startswith("本聊天还没有设置段落")
        assert told.message_id is not None
        data = told.parameters["reply_markup"]["inline_keyboard"][0][0]["callback_data"]
        alice.taps(told.message_id, data, pasted, PARAGRAPH)
        assert ANSWER.match(alice.asks(TEAM))
        assert "段落已设置" in alice.server.messages[told.message_id]["text"]

    def test_a_new_text_sent_without_a_command_that_is_no_question_replaces_the_paragraph_at_a_button(
        self, alice: Person
    ) -> None:
        alice.asks("/context 海边的灯塔由老周看守，他每天清晨五点起床，先擦拭灯镜，再去喂海鸥。")
        pasted = alice.says(PARAGRAPH)
        told = alice.server.reply_to(pasted)
        assert told.text.startswith("段落中无法找到答案") and "新的文字" in told.text
        assert told.message_id is not None
        (take,) = told.parameters["reply_markup"]["inline_keyboard"][-1]
        alice.taps(told.message_id, take["callback_data"], pasted, PARAGRAPH)
        assert ANSWER.match(alice.asks(TEAM))

    def test_a_question_that_the_paragraph_does_not_answer_is_not_offered_as_one(self, alice: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        assert "新的文字" not in alice.asks("请问一下，詹姆斯现在一年的薪水加上广告收入总共有多少？")

    def test_a_short_question_without_a_paragraph_is_not_offered_as_one(self, alice: Person) -> None:
        assert "reply_markup" not in alice.server.reply_to(alice.says(TEAM)).parameters

    def test_a_plain_message_in_a_private_chat_is_a_question(self, alice: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        assert ANSWER.match(alice.asks(TEAM))

    def test_a_command_needs_no_space_before_chinese(self, alice: Person) -> None:
        alice.asks(f"/context{PARAGRAPH}")
        assert ANSWER.match(alice.asks(f"/ask{TEAM}"))

    def test_an_edited_question_is_answered_anew(self, alice: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        question = alice.says("/ask 詹姆斯的年薪是多少？")
        alice.server.reply_to(question)
        alice.says(f"/ask {TEAM}", "edited_message", message_id=question)
        replies = alice.server.wait_for_many(lambda call: is_sent(call) and call.replies_to == question, 2)
        assert ANSWER.match(replies[1].text)

    def test_without_a_paragraph_one_is_told_how_to_set_it(self, bob: Person) -> None:
        assert bob.asks("/ask Who?").startswith("No paragraph is set in this chat. Send /context")
        assert bob.asks("Who?") == bob.asks("/ask Who?")

    def test_chats_do_not_see_each_other_s_paragraphs(self, alice: Person, bob: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        assert bob.asks(TEAM).startswith("No paragraph")

    def test_messages_of_one_chat_are_answered_in_their_order(self, alice: Person) -> None:
        sent = [alice.says(f"/context 第{n}段。" if n % 3 else TEAM) for n in range(30)]
        replies = alice.server.wait_for_many(lambda call: is_sent(call) and is_to(call, alice), len(sent))
        assert [reply.replies_to for reply in replies] == sent

    @pytest.mark.parametrize("mute", ["   ", "\u3000\n", "\0\0", "😀👍🏽🇨🇳1️⃣", "？！", "\ud83d"])
    def test_a_question_without_words_gets_a_kind_answer(self, alice: Person, mute: str) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        replies = {alice.asks(mute), alice.asks(f"/ask {mute}")}
        assert len(replies) == 1
        assert re.match("\u200b您想问什么|我在您的问题里看不到任何文字|您的问题里没有文字", replies.pop())

    def test_a_question_of_5000_characters_is_refused_with_both_numbers(self, alice: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        reply = alice.asks("问" * 5000)
        assert "5,000" in reply
        assert "1,000" in reply

    def test_a_null_inside_a_question_does_no_harm(self, alice: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        assert ANSWER.match(alice.asks("詹姆斯在哪个\0球队？"))


class TestParagraph:
    def test_it_is_shown_with_beginning_length_time_and_author(self, bob: Person) -> None:
        bob.asks(f"/context {PARAGRAPH * 9}")
        shown = bob.asks("/context")
        assert re.match(r"Paragraph set by Li <b>& Co, \d{4}-\d\d-\d\d \d\d:\d\d UTC\. ", shown)
        assert f"{len(PARAGRAPH) * 9:,}" in shown
        assert shown.splitlines()[2].startswith(PARAGRAPH)
        assert shown.endswith("…")

    def test_it_is_taken_from_the_message_that_the_command_replies_to(self, alice: Person) -> None:
        alice.asks("/context", reply_to_message=alice.message(text=PARAGRAPH))
        assert PARAGRAPH[:20] in alice.asks("/context")
        photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
        alice.asks("/context", reply_to_message=alice.message(photo=photo, caption="照片的说明文字。"))
        assert "照片的说明文字。" in alice.asks("/context")

    def test_a_text_after_the_command_wins_over_the_message_replied_to(self, alice: Person) -> None:
        alice.asks("/context 写在后面的。", reply_to_message=alice.message(text="回复的。"))
        assert alice.asks("/context").endswith("写在后面的。")

    def test_a_topic_s_opening_is_no_message_that_one_replies_to(self, alice: Person) -> None:
        opening = alice.message(forum_topic_created={"name": "话题", "icon_color": 0})
        assert "本聊天还没有设置段落" in alice.asks("/context", reply_to_message=opening)

    def test_a_reply_to_a_message_without_text_sets_nothing(self, alice: Person) -> None:
        assert "没有文字" in alice.asks("/context", reply_to_message=alice.message(dice={"emoji": "🎲", "value": 1}))
        assert "本聊天还没有设置段落" in alice.asks("/context")

    def test_its_text_is_kept_to_the_letter(self, alice: Person) -> None:
        text = "  行尾空格  \n\n\t制表符，【括号】<b>&amp;*_`[x](y)  "
        alice.asks(f"/context\n {text}")
        assert f"共 {len(text.lstrip())} 字" in alice.asks("/context")

    def test_an_edited_one_is_set_anew(self, alice: Person) -> None:
        message = alice.says("/context 旧的段落。")
        alice.server.reply_to(message)
        alice.says("/context 新的段落。", "edited_message", message_id=message)
        alice.server.wait_for_many(lambda call: is_sent(call) and call.replies_to == message, 2)
        assert alice.asks("/context").endswith("新的段落。")

    def test_append_adds_and_tells_the_new_length(self, alice: Person) -> None:
        assert "还没有设置段落" in alice.asks("/append 早了。")
        alice.asks("/context 第一部分。")
        assert "共 11 字" in alice.asks("/append 第二部分。")
        assert "共 17 字" in alice.asks("/append", reply_to_message=alice.message(text="第三部分。"))
        assert alice.asks("/context").endswith("第一部分。\n第二部分。\n第三部分。")
        assert alice.asks("/append").startswith("请发送 /append")

    def test_an_edited_append_adds_nothing_and_says_what_to_do(self, alice: Person) -> None:
        alice.asks("/context 第一部分。")
        message = alice.says("/append 第二部分。")
        alice.server.reply_to(message)
        alice.says("/append 第二部分，改过。", "edited_message", message_id=message)
        replies = alice.server.wait_for_many(lambda call: is_sent(call) and call.replies_to == message, 2)
        assert "/context" in replies[1].text
        assert alice.asks("/context").endswith("第一部分。\n第二部分。")

    def test_one_megabyte_is_refused_with_both_numbers(self, alice: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        reply = alice.asks("/context " + "长" * 1_000_000)
        assert "1,000,000" in reply
        assert "100,000" in reply
        assert PARAGRAPH[:20] in alice.asks("/context")

    def test_appending_beyond_the_limit_is_refused_with_both_numbers(self, alice: Person) -> None:
        alice.asks("/context " + "长" * 99_999)
        assert "共 99,999 字" in alice.asks("/context")
        reply = alice.asks("/append 一二")
        assert "100,002" in reply
        assert "100,000" in reply

    @pytest.mark.parametrize("mute", ["\0\0", "😀👍🏽🇨🇳1️⃣", "。。。"])
    def test_one_without_words_gets_a_kind_answer(self, alice: Person, mute: str) -> None:
        assert alice.asks(f"/context {mute}").startswith(("我在这个段落里看不到任何文字", "这个段落里没有文字"))
        assert "本聊天还没有设置段落" in alice.asks("/context")

    @pytest.mark.parametrize("markup", ["<b>粗</i> &lt; <script>", "*粗* _斜_ [链接](http://x) `码`", "</blockquote>"])
    def test_markup_goes_out_as_it_was_written(self, alice: Person, markup: str) -> None:
        alice.asks(f"/context 他说{markup}，然后走了。")
        assert alice.asks("/context").endswith(f"他说{markup}，然后走了。")
        assert alice.server.reply_to(alice.says(f"他说{markup}了吗？"))

    def test_clear_deletes_paragraphs_and_questions(self, alice: Person) -> None:
        assert "没有可删除的内容" in alice.asks("/clear")
        alice.asks("/context 旧的段落。")
        alice.asks(f"/context {PARAGRAPH}")
        alice.asks(TEAM)
        assert alice.asks("/clear") == "已彻底删除。段落：2 个，问题：1 个。"
        assert alice.asks(TEAM).startswith("本聊天还没有设置段落")


class TestCommands:
    def test_start_and_help_speak_the_user_s_language(self, alice: Person, bob: Person) -> None:
        assert "从不编造" in alice.asks("/start")
        assert "/context – 设置段落" in alice.asks("/help")
        assert "It makes nothing up" in bob.asks("/start")
        assert "/context – set the paragraph" in bob.asks("/help")

    def test_an_unknown_language_is_answered_in_english(self, server: BotApiServer, bot: BotProcess) -> None:
        assert "words" in private_chat(server, None).asks("/start")

    def test_an_unknown_command_is_hinted_at_help(self, alice: Person) -> None:
        assert alice.asks("/foo bar") == "我不认识命令 /foo。/help 列出我认识的命令。"

    def test_what_is_no_text_is_answered_once(self, alice: Person) -> None:
        message = alice.sends(dice={"emoji": "🎲", "value": 1})
        assert alice.server.reply_to(message).text.startswith("我只能读文字")

    def test_status_tells_model_device_questions_and_version(self, bob: Person) -> None:
        status = bob.asks("/status")
        assert re.search(r"^Model: .+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", status, re.MULTILINE)
        assert re.search(r"^Device: \w+(:\d)?, (float32|bfloat16|float16)$", status, re.MULTILINE)
        assert "Paragraph in this chat: not set" in status
        assert re.search(r"^Version: \d", status, re.MULTILINE)
        bob.asks(f"/context {PARAGRAPH}")
        bob.asks(TEAM)
        after = bob.asks("/status")
        assert answered(after) > answered(status)
        assert "Paragraph in this chat: set" in after

    def test_reload_is_for_admins(self, server: BotApiServer, bob: Person) -> None:
        assert bob.asks("/reload").startswith("Only those who run this bot")
        assert "/reload" not in bob.asks("/help")
        admin = private_chat(server, "en", ADMIN_ID)
        assert admin.asks("/reload").startswith("There is no new checkpoint.")
        assert "/reload" in admin.asks("/help")


class TestGroups:
    def test_only_commands_for_this_bot_are_answered(self, alice: Person) -> None:
        group = in_group(alice)
        for ignored in (TEAM, "/foo", "/ask@other_bot 谁？", f"/start@{BOT['username']}x"):
            group.says(ignored)
        context = group.says(f"/context@{BOT['username'].upper()} {PARAGRAPH}")
        first = group.server.wait_for(lambda call: is_sent(call) and is_to(call, group))
        assert first.replies_to == context
        assert "/ask" in first.text
        assert ANSWER.match(group.asks(f"/ask@{BOT['username']} {TEAM}"))
        assert "/foo" in group.asks(f"/foo@{BOT['username']}")

    def test_a_paragraph_of_an_anonymous_admin_is_the_group_s(self, bob: Person) -> None:
        group = in_group(bob)
        group.asks(f"/context {PARAGRAPH}", sender_chat=group.chat)
        assert "Paragraph set by 组 <1>," in group.asks("/context")

    def test_a_group_keeps_its_paragraph_when_it_becomes_a_supergroup(self, alice: Person) -> None:
        group = in_group(alice)
        group.asks(f"/context {PARAGRAPH}")
        new = in_group(alice)
        group.sends(migrate_to_chat_id=new.chat["id"])
        group.asks("/status")  # by now the move has been made
        assert PARAGRAPH[:20] in new.asks("/context")


class TestCheckpoints:
    def test_a_broken_one_is_refused_and_a_good_one_taken_up_and_admins_are_told(
        self, server: BotApiServer, bot: BotProcess
    ) -> None:
        admin = private_chat(server, "en", ADMIN_ID)
        publish(bot.folder, "2099-01-01-broken", spoilt="tokenizer.json")
        admin.says("/reload")
        refusal = server.wait_for(lambda call: is_sent(call) and "2099-01-01-broken" in call.text)
        assert refusal.parameters["chat_id"] == ADMIN_ID
        assert "was refused: tokenizer.json" in refusal.text
        assert "2099" not in admin.asks("/status")
        publish(bot.folder, "2099-01-02-good")
        admin.says("/reload")
        server.wait_for(lambda call: is_sent(call) and "2099-01-02-good is loaded" in call.text)
        assert "Model: 2099-01-02-good, since" in admin.asks("/status")


class TestBadDays:
    def test_a_flood_limit_is_waited_out(self, alice: Person) -> None:
        alice.server.fail("sendMessage", Fault(429, retry_after_seconds=1))
        message = alice.says("/status")
        tries = alice.server.wait_for_many(lambda call: call.replies_to == message, 2)
        assert [call.status for call in tries] == [429, 200]
        assert tries[1].seconds - tries[0].seconds >= 1

    def test_a_server_error_and_a_lost_connection_are_tried_again(self, alice: Person) -> None:
        alice.server.fail("sendMessage", Fault(502), Fault(500), Fault(is_dropped=True))
        message = alice.says("/status")
        tries = alice.server.wait_for_many(lambda call: call.replies_to == message, 4)
        assert [call.status for call in tries] == [502, 500, 0, 200]

    def test_a_silent_server_is_asked_again(self, alice: Person) -> None:
        alice.server.fail("sendMessage", Fault(silent_seconds=11))
        assert "模型" in alice.asks("/status")

    def test_what_telegram_refuses_is_not_tried_again_but_told_with_a_reference(
        self, alice: Person, bot: BotProcess
    ) -> None:
        alice.server.fail("sendMessage", Fault(400))
        message = alice.says("/status")
        tries = alice.server.wait_for_many(lambda call: call.replies_to == message, 2)
        assert [call.status for call in tries] == [400, 200]
        reference = re.search(r"[0-9a-f]{8}$", tries[1].text)
        assert reference
        assert f"error {reference[0]} in chat {alice.chat['id']}\nTraceback" in bot.output()

    def test_a_user_who_has_blocked_the_bot_is_no_error(self, alice: Person, bot: BotProcess) -> None:
        alice.server.fail("sendMessage", Fault(403))
        alice.says("/status")
        alice.asks("/help")
        assert re.search(f" INFO .*chat {alice.chat['id']} does not let the bot write", bot.output())

    def test_failing_polls_are_tried_again(self, alice: Person) -> None:
        alice.server.fail("getUpdates", Fault(502), Fault(is_dropped=True))
        assert "模型" in alice.asks("/status")
        assert "模型" in alice.asks("/status")

    def test_the_token_is_in_no_log_line_whatever_the_level(self, alice: Person, bot: BotProcess) -> None:
        alice.server.fail("sendMessage", Fault(is_dropped=True), Fault(500))
        alice.asks("/status")
        log = bot.output()
        assert "sendMessage" in log  # httpx speaks at this level, with the address
        assert SECRET not in log
        assert "[hidden]" in log


def test_what_was_asked_while_the_bot_was_down_or_stopping_is_answered_once(tmp_path: Path) -> None:
    with BotApiServer().running() as server:
        alice = private_chat(server, "zh")
        before = [alice.says(f"/context {PARAGRAPH * 10}"), alice.says(TEAM)]
        with started(tmp_path, **telegram(server)) as bot:
            server.reply_to(before[-1])
            last = [alice.says(TEAM) for _ in range(4)]
            server.wait_until_confirmed()  # the bot has taken them all, and answered some at most
            assert bot.stop() == 0
        replies = [call.replies_to for call in server.calls if is_sent(call)]
        assert replies == before + last


def test_what_a_killed_bot_had_taken_and_not_answered_is_answered_after_its_next_start(tmp_path: Path) -> None:
    with BotApiServer().running() as server:
        alice = private_chat(server, "zh")
        with started(tmp_path, **telegram(server)) as bot:
            alice.asks(f"/context {PARAGRAPH}")
            server.fail("sendMessage", Fault(silent_seconds=15))
            asked = [alice.says(TEAM), alice.says(TEAM)]
            server.wait_until_confirmed()  # Telegram has forgotten them
            assert bot.stop(signal.SIGKILL) == -signal.SIGKILL
        answered = len(server.calls)
        with started(tmp_path, **telegram(server)) as bot:
            assert all(ANSWER.search(server.reply_to(question).text) for question in asked)
            assert alice.asks("/help")
            assert bot.stop() == 0
        replies = [call.replies_to for call in server.calls[answered:] if is_sent(call)]
        assert replies[:2] == asked and len(replies) == 3


def test_an_unreachable_server_is_told_in_one_line_and_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with started(tmp_path, TELEGRAM_BOT_TOKEN=TOKEN, TELEGRAM_API_URL=address, LOG_LEVEL="ERROR") as bot:
        while "cannot reach" not in bot.output():
            assert bot.process.poll() is None
        assert re.fullmatch(rf"\S+ ERROR \S+ cannot reach {address}: .+\n", bot.output())
        with BotApiServer().running(port) as server:
            assert "模型" in private_chat(server, "zh").asks("/status")
            assert bot.stop() == 0


def test_a_bot_that_waits_for_its_server_can_be_stopped(tmp_path: Path) -> None:
    with BotApiServer().running() as server:
        server.fail("getMe", *[Fault(502)] * 100)
        with started(tmp_path, **telegram(server)) as bot:
            server.wait_for(lambda call: call.method == "getMe")
            assert bot.stop(signal.SIGINT) == 0
        assert "Traceback" not in bot.output()


def test_a_wrong_token_is_told_in_one_line(tmp_path: Path) -> None:
    with (
        BotApiServer().running() as server,
        started(tmp_path, TELEGRAM_BOT_TOKEN="1:wrong", TELEGRAM_API_URL=server.url, LOG_LEVEL="ERROR") as bot,
    ):
        assert bot.end() == 1
        assert re.fullmatch(rf"bot: {server.url} refused TELEGRAM_BOT_TOKEN: .+\n", bot.output())


def test_a_revoked_token_ends_the_bot(tmp_path: Path) -> None:
    with BotApiServer().running() as server, started(tmp_path, **telegram(server), LOG_LEVEL="DEBUG") as bot:
        alice = private_chat(server, "zh")
        alice.asks("/status")
        server.token_is_revoked = True
        alice.says("/status")  # ends the poll that is under way
        assert bot.end() == 1
        assert f"\nbot: {server.url} refused TELEGRAM_BOT_TOKEN: " in bot.output()
        assert SECRET not in bot.output()


def publish(folder: Path, name: str, spoilt: str | None = None) -> None:
    """Copy the bundled checkpoint to where the bot looks for new ones; the file `spoilt` is cut short."""
    unnamed = folder / "checkpoints" / ".copying"
    shutil.copytree(ROOT / "qa_engine" / "bundled", unnamed)
    if spoilt:
        os.truncate(unnamed / spoilt, 100)
    unnamed.rename(folder / "checkpoints" / name)


def answered(status: str) -> int:
    match = re.search(r"Questions answered: ([\d,]+)", status)
    assert match
    return int(match[1].replace(",", ""))
