"""Buttons below answers, corrections, /privacy and /forget, on the real program with the bundled checkpoint."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.bot_api_server import BotApiServer, Call, is_sent, plain_text
from tests.system.bot_process import run, started
from tests.system.people import Person, in_group, private_chat, telegram

TEXT = (
    "詹姆斯身高203厘米，司职前锋，体重１１３公斤。他出生于俄亥俄州阿克伦市。\n"
    "\n"
    "2003年，他加入克利夫兰骑士队😀。2016年，他带领球队获得总冠军。\n"
    "他后来效力于洛杉矶湖人队。"
)
HEIGHT = "詹姆斯有多高？"
SALARY = "詹姆斯的年薪是多少？"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judging")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[BotApiServer]:
    with BotApiServer().running() as server, started(folder, **telegram(server)) as bot:
        yield server
        assert bot.stop() == 0


@pytest.fixture
def alice(server: BotApiServer) -> Person:
    return private_chat(server, "zh-hans")


def asked(person: Person, question: str, text: str = TEXT) -> int:
    """Set the text, ask, and return the id of the answer."""
    person.asks(f"/context {text}")
    return answered(person.server.reply_to(person.says(f"/ask {question}")))


def answered(call: Call) -> int:
    assert call.message_id is not None
    return call.message_id


def press(person: Person, message_id: int, label: str) -> str:
    """Press a button; returns what the bot says in passing."""
    return str(person.server.press(person.user, message_id, label, person.chat).parameters.get("text", ""))


def reads(person: Person, message_id: int) -> str:
    """The message as it stands now."""
    return plain_text(person.server.messages[message_id]["text"])


def labels(person: Person, message_id: int) -> list[str]:
    markup = person.server.messages[message_id].get("reply_markup", {})
    return [button["text"] for row in markup.get("inline_keyboard", []) for button in row]


def asked_back(person: Person, answer: int) -> int:
    """Press 👎; returns the id of the message that asks for the right answer."""
    press(person, answer, "👎")
    return answered(person.server.wait_for(lambda call: is_sent(call) and call.replies_to == answer))


def replies(person: Person, message_id: int, text: str) -> str:
    """Reply to a message of the bot; returns what it answers."""
    to = {**person.server.as_replied_to(message_id), "chat": person.chat}
    return person.asks(text, reply_to_message=to)


def exported(folder: Path, *flags: str) -> dict[str, dict[str, Any]]:
    """What `python -m bot export` writes, by question; {} where it has nothing to write."""
    file = folder / "corrections.json"
    file.unlink(missing_ok=True)
    ended = run(folder, "export", "-o", str(file), *flags)
    if ended.returncode:
        assert "There is nothing to export" in ended.stderr
        return {}
    paragraphs = json.loads(file.read_text(encoding="utf-8"))["data"][0]["paragraphs"]
    for paragraph in paragraphs:
        for qa in paragraph["qas"]:
            for answer in qa["answers"]:
                assert paragraph["context"].startswith(answer["text"], answer["answer_start"])
    return {qa["question"]: qa for paragraph in paragraphs for qa in paragraph["qas"]}


class TestButtons:
    def test_other_answers_and_more_text_are_shown_in_the_same_message(self, alice: Person) -> None:
        answer = asked(alice, HEIGHT)
        first = reads(alice, answer)
        assert first.startswith("203厘米\n")
        assert re.search(r"\n第 1 段 · 置信度：(高|中等|低)（.?\d+%）$", first)
        assert labels(alice, answer) == ["其他答案", "上下文", "👍", "👎"]
        press(alice, answer, "上下文")
        assert "克利夫兰" in reads(alice, answer)
        press(alice, answer, "收起上下文")
        assert reads(alice, answer) == first
        press(alice, answer, "其他答案")
        shown = re.match(r"其他答案（2/([2-5])）\n", reads(alice, answer))
        assert shown
        for _ in range(int(shown[1]) - 1):
            press(alice, answer, "其他答案")
        assert reads(alice, answer) == first

    def test_an_answer_s_paragraph_is_counted(self, alice: Person) -> None:
        answer = asked(alice, "他后来效力于哪个球队？")
        assert "\n第 3 段 · " in reads(alice, answer)

    def test_what_the_text_does_not_say_has_the_best_guess_behind_a_button(self, alice: Person) -> None:
        answer = asked(alice, SALARY)
        assert reads(alice, answer).startswith("段落中无法找到答案")
        assert labels(alice, answer) == ["最可能的答案", "👍", "👎"]
        press(alice, answer, "最可能的答案")
        assert reads(alice, answer).startswith("猜测（1/")

    def test_buttons_of_another_chat_do_nothing_here(self, alice: Person, server: BotApiServer) -> None:
        answer = asked(alice, HEIGHT)
        data = server.messages[answer]["reply_markup"]["inline_keyboard"][1][0]["callback_data"]
        bob = private_chat(server, "en")
        told = server.tap(bob.user, answer, data, bob.chat).parameters["text"]
        assert told.startswith("That text has been deleted")

    @pytest.mark.parametrize(
        "data",
        ["show:1", "show:999999999999999999:0", "show:99999999999999999999:0", "wrong:1:99", "nonsense", "📌" * 16],
    )
    def test_a_button_that_nobody_made_is_answered(self, alice: Person, data: str) -> None:
        answer = asked(alice, HEIGHT)
        assert "已被删除" in alice.server.tap(alice.user, answer, data, alice.chat).parameters["text"]

    def test_a_deleted_text_is_told(self, alice: Person) -> None:
        answer = asked(alice, HEIGHT)
        alice.asks("/clear")
        assert "已被删除" in press(alice, answer, "上下文")

    def test_pressing_twice_does_no_harm(self, alice: Person) -> None:
        answer = asked(alice, HEIGHT)
        data = alice.server.messages[answer]["reply_markup"]["inline_keyboard"][0][1]["callback_data"]
        for _ in range(2):
            alice.server.tap(alice.user, answer, data, alice.chat)
        assert "克利夫兰" in reads(alice, answer)
        assert alice.asks("/status")


class TestCorrections:
    def test_what_is_said_of_answers_becomes_a_squad_file(self, alice: Person, folder: Path) -> None:
        """👍; a reply in other script and width; a choice; "does not say"; words that the text has not."""
        text = TEXT.replace("詹姆斯", "甲一")
        questions = ["甲一有多高？", "甲一有多重？", "他们住在哪里？", "甲一的球衣是几号？", "甲一几岁？"]
        homes = "甲一住在北京。乙二住在上海。丙三住在广州。"
        answers = [asked(alice, question, homes if "住" in question else text) for question in questions]
        press(alice, answers[0], "👍")
        assert "113" not in text
        weight = replies(alice, asked_back(alice, answers[1]), "113公斤。")
        assert "１１３公斤" in weight
        prompt = asked_back(alice, answers[2])
        chosen = labels(alice, prompt)[0]
        press(alice, prompt, chosen)
        assert chosen in reads(alice, prompt)
        assert labels(alice, prompt) == []
        prompt = asked_back(alice, answers[3])
        press(alice, prompt, "段落里没有答案")
        assert "没有" in replies(alice, asked_back(alice, answers[4]), "四十岁")

        found = exported(folder)
        assert found[questions[0]]["answers"] == [{"text": "203厘米", "answer_start": text.index("203")}]
        assert found[questions[1]]["answers"] == [{"text": "１１３公斤", "answer_start": text.index("１")}]
        assert found[questions[2]]["answers"][0]["text"] == chosen
        assert found[questions[3]]["is_impossible"]
        assert questions[4] not in found
        assert exported(folder)[questions[0]]["id"] == found[questions[0]]["id"]
        assert questions[0] not in exported(folder, "--min-agreement", "2")
        assert exported(folder, "--since", "2999-01-01") == {}

    def test_a_verdict_can_be_changed(self, alice: Person, folder: Path) -> None:
        text = TEXT.replace("詹姆斯", "乙二")
        answer = asked(alice, "乙二有多高？", text)
        press(alice, answer, "👍")
        assert "乙二有多高？" in exported(folder)
        press(alice, answer, "👎")
        assert "乙二有多高？" not in exported(folder)

    def test_a_reply_to_an_answer_is_a_question(self, alice: Person) -> None:
        answer = asked(alice, HEIGHT)
        assert replies(alice, answer, "他出生于哪里？").startswith("俄亥俄州阿克伦市")


class TestPermission:
    def test_learning_is_off_in_groups_until_an_admin_turns_it_on(self, alice: Person, folder: Path) -> None:
        group = in_group(alice)
        question = "丙三有多高？"
        answer = asked(group, question, TEXT.replace("詹姆斯", "丙三"))
        assert "没有开启学习" in press(group, answer, "👍")
        assert question not in exported(folder)
        privacy = answered(group.server.reply_to(group.says("/privacy")))
        assert "只能由本群管理员决定" in press(group, privacy, "开启学习")
        assert question not in exported(folder)
        group.server.group_admins.add((group.chat["id"], group.user["id"]))
        press(group, privacy, "开启学习")
        assert "学习已开启" in reads(group, privacy)
        assert question in exported(folder)
        press(group, privacy, "关闭学习")
        assert question not in exported(folder)

    def test_a_choice_outlives_clear(self, alice: Person) -> None:
        asked(alice, HEIGHT)
        privacy = answered(alice.server.reply_to(alice.says("/privacy")))
        press(alice, privacy, "关闭学习")
        alice.asks("/clear")
        assert "学习未开启" in alice.asks("/privacy")

    def test_forget_deletes_everything_and_says_what(self, alice: Person, folder: Path) -> None:
        answer = asked(alice, HEIGHT, TEXT.replace("詹姆斯", "丁四"))
        press(alice, answer, "👍")
        asking = answered(alice.server.reply_to(alice.says("/forget")))
        press(alice, asking, "保留")
        assert reads(alice, asking) == "什么都没有删除。"
        asking = answered(alice.server.reply_to(alice.says("/forget")))
        press(alice, asking, "全部删除")
        assert reads(alice, asking).startswith("已彻底删除。段落：1 个，问题：1 个，评价：1 个。")
        assert "已被删除" in press(alice, answer, "👍")
        assert alice.asks(HEIGHT).startswith("本聊天还没有设置段落")
        assert "丁四" not in json.dumps(exported(folder), ensure_ascii=False)

    def test_only_admins_make_a_group_forget(self, alice: Person) -> None:
        group = in_group(private_chat(alice.server, "zh"))
        assert group.asks("/forget") == "这只能由本群管理员决定。"


def test_buttons_work_after_a_restart(tmp_path: Path) -> None:
    with BotApiServer().running() as server:
        alice = private_chat(server, "zh")
        with started(tmp_path, **telegram(server)) as bot:
            answer = asked(alice, HEIGHT)
            prompt = asked_back(alice, answer)
            assert bot.stop() == 0
        with started(tmp_path, **telegram(server)):
            press(alice, answer, "其他答案")
            assert reads(alice, answer).startswith("其他答案（2/")
            assert "203厘米" in replies(alice, prompt, "203厘米")
