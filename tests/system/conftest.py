"""What the system tests share."""

from collections.abc import Iterator

import pytest

from tests.system.bot_api_server import BotApiServer


@pytest.fixture(scope="module")
def server() -> Iterator[BotApiServer]:
    with BotApiServer().running() as server:
        yield server
