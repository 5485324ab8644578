"""The real program in groups, in three languages, typed to from anywhere, and for those only whom it is for."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.system.bot_api_server import BOT, BotApiServer, Call, Fault, is_sent, plain_text
from tests.system.bot_process import BotProcess, started
from tests.system.people import ANSWER, PARAGRAPH, TEAM, Person, in_group, is_to, private_chat, telegram

ADMIN_ID = 777
NAME = f"@{BOT['username']}"
ids = count(700_000)


@pytest.fixture(scope="module")
def bot(server: BotApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotProcess]:
    """One bot for many tests; everyone writes from a chat of their own."""
    with started(tmp_path_factory.mktemp("groups"), **telegram(server), ADMIN_USER_IDS=str(ADMIN_ID)) as bot:
        yield bot
        assert bot.stop() == 0
        assert "Traceback" not in bot.output()
    assert server.violations == []


@pytest.fixture
def alice(server: BotApiServer, bot: BotProcess) -> Person:
    return private_chat(server, "zh-hans")


@pytest.fixture
def bob(server: BotApiServer, bot: BotProcess) -> Person:
    return private_chat(server, "en")


def joining(person: Person, group: Person) -> Person:
    return Person(person.server, person.user, group.chat)


def admin_of(group: Person) -> Person:
    """Somebody else, who is an admin of the group."""
    admin = joining(private_chat(group.server, "zh-hans"), group)
    group.server.group_admins.add((group.chat["id"], admin.user["id"]))
    return admin


def presses(person: Person, data: str, asked_by: Person | None = None) -> Call:
    """Press a button below the bot's last message, its reply to `asked_by`; returns what the bot answered it with."""
    asked = {"message_id": next(ids), "date": 1, "chat": person.chat, "from": (asked_by or person).user, "text": "/"}
    sent = [number for number, message in person.server.messages.items() if message["chat_id"] == person.chat["id"]]
    return person.server.tap(person.user, max(sent), data, person.chat, text="?", reply_to_message=asked)


def types(person: Person, query: str) -> str:
    """Type an inline query; returns its id."""
    number = str(next(ids))
    update = {"id": number, "from": person.user, "query": query, "offset": "", "chat_type": "group"}
    person.server.send_update({"inline_query": update})
    return number


def inline_answer(person: Person, number: str) -> dict[str, Any]:
    call = person.server.wait_for(lambda call: call.parameters.get("inline_query_id") == number)
    assert call.status == 200
    return call.parameters


def membership(group: Person, status: str) -> None:
    """The bot is added to the group, or removed from it."""
    member = {"user": BOT, "status": status} | ({"until_date": 0} if status == "kicked" else {})
    change = {"chat": group.chat, "from": group.user, "date": int(time.time())}
    change |= {"old_chat_member": {"user": BOT, "status": "left"}, "new_chat_member": member}
    group.server.send_update({"my_chat_member": change})


def buttons(call: Call) -> list[str]:
    return [button["text"] for row in call.parameters["reply_markup"]["inline_keyboard"] for button in row]


class TestLanguages:
    def test_traditional_chinese_is_spoken_to_who_reads_it(self, server: BotApiServer, bot: BotProcess) -> None:
        for code in ("zh-hant", "zh-TW", "zh-hk"):
            assert "設定段落" in private_chat(server, code).asks("/help")

    def test_a_language_is_chosen_by_a_button_and_kept(self, alice: Person) -> None:
        asked = alice.server.reply_to(alice.says("/language"))
        assert buttons(asked) == ["简体中文", "繁體中文", "English", "✓ 与我的 Telegram 相同"]
        assert presses(alice, "language:en").parameters["text"] == "From now on I speak English with you."
        edited = alice.server.wait_for(lambda call: call.method == "editMessageText" and is_to(call, alice))
        assert buttons(edited)[2] == "✓ English"
        assert "/context – set the paragraph" in alice.asks("/help")
        menu = alice.server.wait_for(
            lambda call: call.method == "setMyCommands" and call.parameters["scope"].get("chat_id") == alice.chat["id"]
        )
        assert menu.parameters["commands"][0]["description"].startswith("set the paragraph")
        presses(alice, "language:auto")
        assert "设置段落" in alice.asks("/help")

    def test_a_language_can_be_named_without_buttons(self, bob: Person) -> None:
        assert bob.asks("/language 繁體中文").startswith("您希望我用哪種語言")
        assert "信心度" in f"{bob.asks(f'/context {PARAGRAPH}')}{bob.asks(TEAM)}"

    def test_in_a_group_everyone_has_their_own(self, alice: Person, bob: Person) -> None:
        group = in_group(alice)
        other = joining(bob, group)
        group.asks("/language")
        assert presses(other, "language:zh_Hant", asked_by=group).parameters["text"].startswith("從現在起")
        assert "設定段落" in other.asks("/help")
        assert "设置段落" in group.asks("/help")
        edits = [call for call in group.server.calls if call.method == "editMessageText" and is_to(call, group)]
        assert edits == []  # the message is Alice's

    def test_menus_and_descriptions_are_set_in_each_language_and_scope(
        self, server: BotApiServer, bot: BotProcess
    ) -> None:
        private_chat(server, "en").asks("/help")  # by now they have been set
        menus = {}
        for call in server.calls:
            if call.method == "setMyCommands" and call.parameters["scope"].get("chat_id") in (None, ADMIN_ID):
                key = call.parameters["scope"]["type"], call.parameters.get("language_code")
                menus[key] = [command["command"] for command in call.parameters["commands"]]
        everyone = menus["all_private_chats", None]
        assert {"context", "ask", "language", "start"} <= set(everyone)
        in_groups = [name for name in everyone if name != "start"]
        for code in (None, "zh"):
            assert menus["all_private_chats", code] == everyone
            assert menus["all_group_chats", code] == in_groups
            assert menus["all_chat_administrators", code] == [*in_groups, "settings"]
            assert menus["chat", code] == [*everyone, "reload"]
        assert len(menus) == 8
        assert "原话" in server.shown["description zh"]
        assert "own words" in server.shown["description "]
        assert "原话" in server.shown["short_description zh"]

    def test_who_reads_traditional_chinese_gets_a_menu_in_it(self, server: BotApiServer, bot: BotProcess) -> None:
        person = private_chat(server, "zh-hant")
        person.says("/start")
        chat = {"type": "chat", "chat_id": person.user["id"]}
        menus = server.wait_for_many(
            lambda call: call.parameters.get("scope") == chat and "commands" in call.parameters, 2
        )
        assert all("設定" in str(menu.parameters["commands"]) for menu in menus)


class TestWhoMaySet:
    def test_at_first_everyone_may(self, alice: Person, bob: Person) -> None:
        group = in_group(alice)
        group.asks(f"/context {PARAGRAPH}")
        assert "Added" in joining(bob, group).asks("/append 更多。")
        settings = group.server.reply_to(group.says("/settings"))
        assert buttons(settings) == ["✓ 所有人", "仅管理员"]

    def test_an_admin_can_keep_it_to_admins(self, alice: Person, bob: Person) -> None:
        group = in_group(alice)
        admin, member = admin_of(group), joining(bob, group)
        group.asks(f"/context {PARAGRAPH}")
        assert presses(member, "settings:set:admins").parameters["text"].startswith("Only admins of this group")
        assert "Added" in member.asks("/append 更多。")
        presses(admin, "settings:set:admins")
        edited = group.server.wait_for(lambda call: call.method == "editMessageText" and is_to(call, group))
        assert buttons(edited) == ["所有人", "✓ 仅管理员"]

        for change in ("/context 别的。", "/append 别的。", "/clear", f"/clear{NAME}"):
            assert member.asks(change).startswith("In this group only admins change what I read.")
        assert member.asks("/context", reply_to_message=group.message(text="别的。")).startswith("In this group")
        assert member.asks("/append 改过的。", kind="edited_message").startswith("In this group only admins")
        assert PARAGRAPH[:20] in member.asks("/context")
        assert ANSWER.match(group.asks(f"/ask {TEAM}"))
        assert "已添加" in admin.asks("/append 管理员的。")
        assert "已添加" in group.asks("/append 匿名管理员的。", sender_chat=group.chat)
        presses(admin, "settings:set:everyone")
        assert member.asks("/clear").startswith("Deleted for good")

    def test_telegram_is_not_asked_again_and_again_who_is_an_admin(self, alice: Person) -> None:
        group = in_group(alice)
        admin = admin_of(group)
        admin.asks("/settings")
        presses(admin, "settings:set:admins")
        for number in range(5):
            assert "段落已设置" in admin.asks(f"/context 第{number}段。")
        lookups = [call for call in group.server.calls if call.method == "getChatMember" and is_to(call, group)]
        assert len(lookups) == 1

    def test_whoever_cannot_be_checked_changes_nothing(self, alice: Person) -> None:
        group = in_group(alice)
        group.asks("/settings")
        presses(admin_of(group), "settings:set:admins")
        group.server.fail("getChatMember", Fault(400))
        assert group.asks("/context 别的。").startswith("没能查到您是不是这里的管理员")
        assert "本聊天还没有设置段落" in group.asks("/context")

    def test_it_holds_on_when_the_group_becomes_a_supergroup(self, alice: Person) -> None:
        group = in_group(alice)
        group.asks("/settings")
        presses(admin_of(group), "settings:set:admins")
        new = in_group(alice)
        group.sends(migrate_to_chat_id=new.chat["id"])
        group.asks("/status")  # by now the move has been made
        assert new.asks("/clear").startswith("在本群组里，只有群管理员")

    def test_a_private_chat_has_no_such_settings(self, bob: Person) -> None:
        assert bob.asks("/settings").startswith("Settings are for groups.")


class TestGroups:
    def test_a_question_to_the_bot_s_name_is_answered(self, alice: Person) -> None:
        group = in_group(alice)
        group.asks(f"/context {PARAGRAPH}")
        group.says(f"@other_bot {TEAM}")
        group.says(f"问问{NAME}吧")
        assert ANSWER.match(group.asks(f"{NAME.upper()} {TEAM}"))
        assert ANSWER.match(group.asks(f"{NAME}，{TEAM}"))
        assert ANSWER.match(group.asks(f"{NAME}{TEAM}"))
        assert len([call for call in group.server.calls if is_sent(call) and is_to(call, group)]) == 4

    def test_help_says_what_reaches_the_bot(self, alice: Person, bob: Person) -> None:
        assert f"messages that begin with {NAME} reach me here" in in_group(bob).asks("/help")
        assert "看不到" in in_group(alice).asks("/help")
        assert "reach me here" not in bob.asks("/help")

    def test_a_bot_that_was_removed_stops_writing_until_it_is_added_again(self, alice: Person) -> None:
        group = in_group(alice)
        group.asks(f"/context {PARAGRAPH}")
        membership(group, "kicked")
        left_over = group.says(f"/ask {TEAM}", date=int(time.time()) - 5)
        membership(group, "member")
        assert ANSWER.match(group.asks(f"/ask {TEAM}"))
        assert left_over not in [call.replies_to for call in group.server.calls]

    def test_a_bot_that_is_told_off_stops_writing_until_somebody_writes_again(self, alice: Person) -> None:
        group = in_group(alice)
        group.server.fail("sendMessage", Fault(403))
        group.says("/help", date=int(time.time()) - 9)
        left_over = group.says("/help", date=int(time.time()) - 8)
        assert "/context" in group.asks("/help", date=int(time.time()) + 9)
        assert left_over not in [call.replies_to for call in group.server.calls]


class TestInline:
    def test_a_question_typed_anywhere_is_answered_from_the_private_paragraph(self, alice: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        answer = inline_answer(alice, types(alice, TEAM))
        (result,) = answer["results"]
        assert result["title"] in PARAGRAPH
        assert result["title"] in result["description"]
        message = plain_text(result["input_message_content"]["message_text"])
        assert message.startswith(f"{TEAM}\n\n{result['title']}\n")
        assert "置信度：" in message
        assert answer["is_personal"] is True
        assert answer["cache_time"] <= 10

    def test_without_a_paragraph_a_button_leads_to_the_private_chat(self, bob: Person) -> None:
        answer = inline_answer(bob, types(bob, "Who?"))
        assert answer["results"] == []
        assert answer["button"] == {"text": "Set a paragraph in our chat first", "start_parameter": "inline"}
        assert answer["cache_time"] == 0
        assert "It makes nothing up" in bob.asks("/start inline")

    @pytest.mark.parametrize("query", ["", "  ", "😀"])
    def test_without_words_there_is_nothing_to_read(self, alice: Person, query: str) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        assert inline_answer(alice, types(alice, query))["button"]["text"] == "请写出关于段落的问题"

    def test_only_the_last_of_what_is_typed_is_answered(self, alice: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        typed = [types(alice, TEAM[:length]) for length in range(2, len(TEAM) + 1)]
        inline_answer(alice, typed[-1])
        answered = [call.parameters.get("inline_query_id") for call in alice.server.calls]
        assert len([number for number in typed if number in answered]) < len(typed) / 2

    def test_what_was_sent_by_the_bot_s_inline_answers_is_no_question(self, alice: Person) -> None:
        alice.asks(f"/context {PARAGRAPH}")
        sent = alice.says("洛杉矶湖人队", via_bot=BOT)
        assert ANSWER.match(alice.asks(TEAM))
        assert sent not in [call.replies_to for call in alice.server.calls]


def test_strangers_are_refused_once_and_menus_are_set_only_when_they_change(tmp_path: Path) -> None:
    with BotApiServer().running() as server:
        friend, stranger = private_chat(server, "en"), private_chat(server, "zh")
        home, elsewhere = in_group(stranger), in_group(stranger)
        allowed = {"ALLOWED_USER_IDS": f"{friend.user['id']}", "ALLOWED_CHAT_IDS": f"{home.chat['id']}"}
        with started(tmp_path, **telegram(server), **allowed, ADMIN_USER_IDS=str(ADMIN_ID)) as bot:
            assert f"{stranger.chat['id']}" in stranger.asks("/start")
            elsewhere.says("没有人对机器人说话。")
            assert elsewhere.asks("/ask 谁？").startswith("这个机器人只为管理员选定的人服务。")
            for unanswered in (stranger, elsewhere):
                unanswered.says("/start")
                unanswered.says("/context 偷偷的。")
            assert inline_answer(stranger, types(stranger, "谁？"))["results"] == []
            assert presses(elsewhere, "settings:set:admins").parameters["show_alert"] is True
            assert "段落已设置" in home.asks("/context 一。")
            assert "The paragraph is set" in joining(friend, elsewhere).asks("/context 二。")
            assert "It makes nothing up" in friend.asks("/start")
            assert "It makes nothing up" in private_chat(server, "en", ADMIN_ID).asks("/start")
            for told in (stranger, elsewhere):
                refusals = [call for call in server.calls if is_sent(call) and is_to(call, told)]
                assert len([call for call in refusals if "选定" in call.text]) == 1
            assert bot.stop() == 0
        set_at_first = len(setting(server))
        assert set_at_first == 12
        with started(tmp_path, **telegram(server), **allowed, ADMIN_USER_IDS=str(ADMIN_ID)) as bot:
            friend.asks("/help")
            assert bot.stop() == 0
        assert len(setting(server)) == set_at_first
        assert server.violations == []


def setting(server: BotApiServer) -> list[Call]:
    return [call for call in server.calls if call.method.startswith("setMy")]
