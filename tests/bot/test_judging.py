"""Buttons, corrections, /privacy and /forget at work in one process, with a reader whose answers are known."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.store import Judgement, Verdict
from tests.bot.test_handlers import Bench, bench


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as desk:
        desk.reader.may_answer.set()
        desk.reader.scores = (0.6, 0.2, 0.1)
        await desk.say("/context 一二三。一二三四。")
        yield desk


async def judgement(desk: Bench) -> Judgement:
    [said] = await desk.application.bot_data.store.judgements()
    return said


async def test_the_buttons_below_an_answer_go_round_its_candidates(desk: Bench) -> None:
    await desk.say("谁？")
    assert list(desk.buttons()) == ["Other answers", "More text", "👍", "👎"]
    seen = []
    for _ in range(3):
        assert await desk.press(desk.buttons()["Other answers"]) == ""
        seen.append(desk.shown().split("\n")[:2])
    assert seen[:2] == [["<i>Answer 2 of 3</i>", "<b>二</b>"], ["<i>Answer 3 of 3</i>", "<b>三</b>"]]
    assert seen[2][0] == "<b>一</b>"


async def test_more_text_and_less_again(desk: Bench) -> None:
    await desk.say("谁？")
    short = desk.shown()
    await desk.press(desk.buttons()["More text"])
    assert "一二三四" in desk.shown()
    await desk.press(desk.buttons()["Less text"])
    assert desk.shown() == short


async def test_an_unsure_answer_stands_behind_a_button(desk: Bench) -> None:
    desk.reader.finds_answers = False
    await desk.say("谁？")
    assert desk.shown().startswith("<b>The answer is not in the paragraph</b>")
    assert "一" not in desk.shown()
    assert list(desk.buttons()) == ["Best guess", "👍", "👎"]
    await desk.press(desk.buttons()["Best guess"])
    assert desk.shown().startswith("<i>A guess, 1 of 3: the paragraph probably does not say</i>\n<b>一</b>")


async def test_a_thumb_up_is_for_what_is_shown(desk: Bench) -> None:
    await desk.say("谁？")
    first = desk.buttons()
    assert await desk.press(first["👍"]) == "Thank you. That is kept."
    assert (await judgement(desk)).verdict is Verdict.RIGHT
    await desk.press(first["Other answers"])
    await desk.press(desk.buttons()["👍"])
    said = await judgement(desk)
    assert (said.verdict, said.span) == (Verdict.WRONG, (1, 2))


async def test_a_thumb_up_for_silence_means_that_the_text_does_not_say(desk: Bench) -> None:
    desk.reader.finds_answers = False
    await desk.say("谁？")
    await desk.press(desk.buttons()["👍"])
    assert (await judgement(desk)).verdict is Verdict.ABSENT


async def test_after_a_thumb_down_the_right_answer_can_be_chosen(desk: Bench) -> None:
    await desk.say("谁？")
    await desk.press(desk.buttons()["👎"])
    assert "<b>What is the right answer?</b>" in desk.shown()
    assert list(desk.buttons()) == ["二", "三", "The text does not say"]
    choices = desk.buttons()
    await desk.press(choices["三"])
    assert "<b><u>三</u></b>" in desk.shown()
    assert (await judgement(desk)).span == (2, 3)
    await desk.press(choices["The text does not say"])
    assert (await judgement(desk)).verdict is Verdict.ABSENT


async def test_after_a_thumb_down_a_reply_is_the_right_answer(desk: Bench) -> None:
    await desk.say("谁？")
    await desk.press(desk.buttons()["👎"])
    prompt = desk.request.sent
    await desk.say("二三四。", reply_to=prompt)
    assert "<b><u>二三四</u></b>" in desk.shown()
    assert (await judgement(desk)).span == (5, 8)
    await desk.say("没有的字", reply_to=prompt)
    assert desk.shown().startswith("Those words do not stand in the text")
    said = await judgement(desk)
    assert (said.verdict, said.span) == (Verdict.WRONG, None)
    await desk.say("一", reply_to=prompt)
    assert (await judgement(desk)).verdict is Verdict.RIGHT


async def test_a_reply_to_anything_else_is_a_question(desk: Bench) -> None:
    await desk.say("谁？")
    await desk.say("那么谁？", reply_to=desk.request.sent)
    assert desk.shown().startswith("<b>一</b>")
    assert await desk.application.bot_data.store.questions_answered() == 2


@pytest.mark.parametrize(
    "data", ["show:1:9", "show:7:0", "show:1", "show:999999999999999999:0", "nonsense", "wrong:2:-"]
)
async def test_a_button_that_leads_nowhere_says_so(desk: Bench, data: str) -> None:
    await desk.say("谁？")
    assert (await desk.press(data)).startswith("That text has been deleted")


async def test_a_button_of_another_chat_leads_nowhere(desk: Bench) -> None:
    await desk.say("谁？")
    assert (await desk.press(desk.buttons()["👍"], chat_id=2)).startswith("That text has been deleted")
    assert await desk.application.bot_data.store.judgements() == []


async def test_a_failing_button_is_answered_too(desk: Bench) -> None:
    await desk.say("谁？")
    data = desk.buttons()["More text"]
    desk.request.refuse = lambda method, parameters: method == "editMessageText"
    assert await desk.press(data) == ""


async def test_a_group_decides_by_its_admins(desk: Bench) -> None:
    await desk.say("/context 一二三。", chat_id=-1)
    await desk.say("/ask 谁？", chat_id=-1)
    assert "Learning is off" in await desk.press(desk.buttons()["👍"], chat_id=-1)
    await desk.say("/privacy", chat_id=-1)
    assert "Learning is off" in desk.shown()
    told = await desk.press(desk.buttons()["Turn learning on"], chat_id=-1)
    assert told == "Only this group's admins can decide that."
    await desk.say("/forget", chat_id=-1)
    assert desk.shown() == "Only this group's admins can decide that."
    assert (await desk.press("forget:yes", chat_id=-1)) == "Only this group's admins can decide that."
    assert await desk.application.bot_data.store.judgements() == []


async def test_privacy_is_switched_and_everything_forgotten_in_a_private_chat(desk: Bench) -> None:
    await desk.say("谁？")
    await desk.press(desk.buttons()["👍"])
    await desk.say("/privacy")
    assert "<b>Learning is on</b>" in desk.shown()
    await desk.press(desk.buttons()["Turn learning off"])
    assert "<b>Learning is off</b>" in desk.shown()
    assert await desk.application.bot_data.store.judgements() == []
    await desk.say("/forget")
    await desk.press(desk.buttons()["Keep it"])
    assert desk.shown() == "Nothing was deleted."
    await desk.press("forget:yes")
    assert desk.shown().startswith("Deleted for good. Paragraphs: 1, questions: 1, verdicts: 1.\n")
    assert await desk.application.bot_data.store.current_context(1) is None
