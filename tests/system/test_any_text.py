"""Whatever Unicode people send as paragraph and question: the real bot replies to each, and Telegram would take it."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.system.bot_api_server import BotApiServer
from tests.system.bot_process import BotProcess, started
from tests.system.people import private_chat, telegram

EXAMPLES = 60

ODD = [
    "👨‍👩‍👧‍👦",
    "🇨🇳",
    "👍🏽",
    "é",
    "e\u0301",
    "\u200f",
    "\u202e",
    "\0",
    "\ud83d",
    "\ufeff",
    "𠮷",
    "<b>",
    "</i>",
    "&amp;",
    "&#0;",
    "%s{}",
    "\r\n",
    "/ask",
    "@duwen_test_bot",
    "…",
]
PIECES = st.one_of(
    st.text(max_size=20),
    st.text("小明在北京大学读书，他今年二十岁。臺灣是個島嶼「你好」！？１２３abc ", max_size=40),
    st.sampled_from(ODD),
    st.characters(categories=["Cs", "Co", "Cn", "Cc", "Cf", "So", "Mn"]),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@pytest.fixture(scope="module")
def bot(server: BotApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotProcess]:
    with started(tmp_path_factory.mktemp("any"), **telegram(server)) as bot:
        yield bot
        assert bot.stop() == 0
        assert "Traceback" not in bot.output()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(paragraph="小明在北京👨‍👩‍👧‍👦<b>&大学读书。" * 300, question="小明在哪里读书？")
@example(paragraph="他叫\ud83d李雷。", question="他叫什\ud83d么？")
@given(paragraph=TEXTS, question=TEXTS)
def test_every_paragraph_and_every_question_gets_a_reply_that_telegram_takes(
    server: BotApiServer, bot: BotProcess, paragraph: str, question: str
) -> None:
    person = private_chat(server, "zh-hans")  # a new one: nobody is slowed down
    for text in (f"/context {paragraph}", f"/ask {question}", question or "?"):
        assert person.asks(text).strip()
    assert server.violations == []
