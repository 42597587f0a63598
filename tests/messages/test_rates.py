"""Rates of channels and their handlers: clients that wait, that get an error, that are closed."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from pydantic import BaseModel

from antiphon import App, ChannelOptions, OnInvalid, RegistrationError, WebSocket
from antiphon.events import AccessRefused, Event, Refusal
from antiphon.gate import CLOSE, REPLY, TOPIC, OverRate, Rate
from antiphon.hub import Hub
from antiphon.messages import MessageRouter
from antiphon.server import ServerConfig
from antiphon.testing import Server, virtual_time


class Say(BaseModel):
    text: str = ""


class Move(BaseModel):
    x: int = 0


def now() -> float:
    return asyncio.get_running_loop().time()


def app_with(said: list[float], *, rate: Rate | None = None, rates: Any = None, **options: Any) -> App:
    app = App(channel_options=ChannelOptions(**options))
    chat = app.add_channel("/", rates=rates)

    @chat.on(rate=rate)
    async def say(message: Say) -> int:
        said.append(now())
        return len(said)

    @chat.on
    async def move(message: Move) -> None: ...

    @chat.on_bytes
    async def take(data: bytes) -> None:
        said.append(now())

    return app


MOVE = '{"type":"move","ref":99}'
SAY = '{"type":"say","ref":%d}'


@pytest.mark.parametrize("level", ["channel", "handler"])
@virtual_time
async def test_reply_answers_what_is_too_much_and_exactly_the_rest_passes(level: str) -> None:
    rate = Rate("5/second", burst=40, over=REPLY)
    said: list[float] = []
    app = app_with(said, **({"rate": rate} if level == "handler" else {"rates": [rate]}), invalid_limit=None)
    async with Server(app) as server, server.connect("/") as client:
        began, refused = now(), []
        for ref in range(6000):
            await client.send(SAY % ref)
            answer = await client.receive_json()
            assert answer["ref"] == ref
            if answer["type"] == "error":
                refused.append(answer)
            if ref % 10 == 9:
                await asyncio.sleep(0.1)
        assert sum(1 for at in said if at <= began + 60 + 1e-6) == pytest.approx(340, abs=1)
        assert refused[0]["code"] == "rate_limited"
        assert refused[0]["message"] == "too fast"
        assert refused[0]["detail"] == {"retry_after": pytest.approx(0.2, abs=0.11)}


@pytest.mark.parametrize("level", ["channel", "handler"])
@virtual_time
async def test_what_the_quick_parser_does_not_take_is_counted_too(level: str) -> None:
    rate = Rate("1/hour", burst=2, over=REPLY)
    said: list[float] = []
    app = app_with(said, **({"rate": rate} if level == "handler" else {"rates": [rate]}))
    async with Server(app) as server, server.connect("/") as client:
        for _ in range(5):
            await client.send(r'{"type":"say","ref":1,"text":"\ud800"}')
        codes = [(await client.receive_json()).get("code") for _ in range(5)]
    assert codes == [None, None, "rate_limited", "rate_limited", "rate_limited"]
    assert len(said) == 2


@virtual_time
async def test_who_is_told_comes_in_time_when_it_waits_as_long_as_it_was_told() -> None:
    app = app_with([], rate=Rate("3/minute", burst=1, over=REPLY))
    async with Server(app) as server, server.connect("/") as client:
        await client.send(SAY % 1)
        await client.receive_json()
        await client.send(SAY % 2)
        told = (await client.receive_json())["detail"]["retry_after"]
        assert told == pytest.approx(20, abs=0.01)
        await asyncio.sleep(told)
        await client.send(SAY % 3)
        assert (await client.receive_json())["type"] == "reply"


@pytest.mark.parametrize("level", ["channel", "handler"])
@pytest.mark.parametrize("on_invalid", OnInvalid)
@virtual_time
async def test_being_told_counts_as_other_mistakes_do(level: str, on_invalid: OnInvalid) -> None:
    rate = Rate("1/hour", over=REPLY)
    app = app_with(
        [], **({"rate": rate} if level == "handler" else {"rates": [rate]}), invalid_limit=3, on_invalid=on_invalid
    )
    async with Server(app) as server, server.connect("/") as client:
        for ref in range(5):
            await client.send(SAY % ref)
        codes = [(await client.receive_json()).get("code") for _ in range(4)]
        assert codes == [None, "rate_limited", "rate_limited", "rate_limited"]
        assert await client.wait_closed() == 1008
        assert client.close_reason == "too many invalid messages"


@pytest.mark.parametrize("level", ["channel", "handler"])
@virtual_time
async def test_close_closes_a_channel(level: str) -> None:
    rate = Rate("1/hour", burst=2, over=CLOSE)
    said: list[float] = []
    app = app_with(said, **({"rate": rate} if level == "handler" else {"rates": [rate]}))
    async with Server(app) as server, server.connect("/") as client:
        for ref in range(3):
            await client.send(SAY % ref)
        assert await client.wait_closed() == 1008
        assert client.close_reason == "too fast"
    assert len(said) == 2


@pytest.mark.parametrize("level", ["channel", "handler"])
@virtual_time
async def test_who_waits_holds_up_what_is_behind_it(level: str) -> None:
    rate = Rate("5/second", burst=10)
    said: list[float] = []
    app = app_with(said, **({"rate": rate} if level == "handler" else {"rates": [rate]}))
    async with Server(app) as server, server.connect("/") as client:
        began = now()
        for ref in range(20):
            await client.send(SAY % ref)
        await client.send(MOVE)
        answers = [await client.receive_json(timeout=60) for _ in range(21)]
        assert [answer["ref"] for answer in answers] == [*range(20), 99]
        assert said[-1] - began == pytest.approx(2.0, abs=0.01)


@virtual_time
async def test_a_handlers_rate_leaves_the_others_alone() -> None:
    app = app_with([], rate=Rate("1/hour", over=REPLY))
    async with Server(app) as server, server.connect("/") as client:
        for ref in range(50):
            await client.send(MOVE.replace("99", str(ref)))
            assert (await client.receive_json())["type"] == "reply"


@virtual_time
async def test_binary_messages_and_bytes_count_for_a_channel() -> None:
    said: list[float] = []
    app = app_with(said, rates=[Rate("100 B/hour", over=REPLY)])
    async with Server(app) as server, server.connect("/") as client:
        await client.send(b"x" * 60)
        await client.send(b"x" * 60)
        assert (await client.receive_json())["code"] == "rate_limited"
        await client.send(b"x" * 40)
        await asyncio.sleep(0)
    assert len(said) == 2


@virtual_time
async def test_a_stop_closes_while_a_handlers_message_waits() -> None:
    said: list[float] = []
    app = app_with(said, rate=Rate("0.2/second", burst=1))
    async with Server(app, config=ServerConfig(stop_window=0)) as server, server.connect("/") as client:
        for ref in range(3):
            await client.send(SAY % ref)
        await asyncio.sleep(1)
        began = now()
        await server.stop()
        assert await client.wait_closed() == 1012
        assert now() - began < 0.5
    assert len(said) == 1


@virtual_time
async def test_a_wait_too_long_closes_a_channel_with_3008() -> None:
    app = app_with([], rate=Rate("100 B/second", burst=100, longest_wait=2))
    async with Server(app) as server, server.connect("/") as client:
        await client.send(json.dumps({"type": "say", "text": "x" * 400}))
        assert await client.wait_closed() == 3008


@virtual_time
async def test_spend_in_a_handler_answers_as_its_rate_says() -> None:
    rate = Rate("1/hour", per=TOPIC, over=REPLY)
    app = App()
    chat = app.add_channel("/")

    @chat.on
    async def say(message: Say, websocket: WebSocket) -> None:
        await rate.spend(websocket, topic=f"room/{message.text}")

    async with Server(app) as server, server.connect("/") as client:
        for ref, room in enumerate("aabb"):
            await client.send(json.dumps({"type": "say", "ref": ref, "text": room}))
        answers = [await client.receive_json() for _ in range(4)]
        assert [answer.get("code") for answer in answers] == [None, "rate_limited", None, "rate_limited"]
        assert answers[1]["detail"] == {"retry_after": pytest.approx(3600, abs=1)}


@virtual_time
async def test_refusals_are_counted_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "antiphon")
    events: list[Event] = []
    app = App(hub=Hub(observer=events.append))
    chat = app.add_channel("/rooms/{room}", options=ChannelOptions(invalid_limit=None))

    @chat.on(rate=Rate("1/hour", over=REPLY))
    async def say(message: Say) -> None: ...

    async with Server(app) as server:
        for room in range(3):
            async with server.connect(f"/rooms/{room}") as client:
                for ref in range(5):
                    await client.send(SAY % ref)
                    await client.receive_json()
    assert [event.reason for event in events if isinstance(event, AccessRefused)] == [Refusal.RATE] * 12
    lines = [record.getMessage() for record in caplog.records if "passes" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith(
        "/rooms/{room}: a client passes 1/hour per connection (@on(rate=)): answered with an error"
    )


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize(
    ("rate", "told"),
    [
        ("5/second", r"rate is a Rate\(\"5/second\"\), not '5/second'"),
        (Rate("1/second", per=TOPIC), "nobody knows the topic of a message before its handler does"),
        (Rate("1/hour"), "one message takes 3600 s, and nobody waits longer than longest_wait=10"),
    ],
)
def test_a_handlers_rate_that_cannot_work_is_told_at_registration(group: bool, rate: Any, told: str) -> None:
    handlers: Any = MessageRouter() if group else App().add_channel("/")
    with pytest.raises(RegistrationError, match=f"say.*{told}"):

        @handlers.on(rate=rate)  # type: ignore[untyped-decorator]
        async def say(message: Say) -> None: ...


def test_a_channel_takes_every_policy() -> None:
    for over in OverRate:
        App().add_channel("/", rates=[Rate("5/second", over=over)])
