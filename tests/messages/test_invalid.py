"""Bad messages: the errors for the client, the connection that works afterwards, and the limit at which it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from antiphon import App, Caller, ChannelOptions, HTTPException, OnError, OnInvalid, ServerConfig, Wire
from antiphon.testing import Server


class Say(BaseModel):
    text: str


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str


class StrictTagged(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["tagged"]


class Tree(BaseModel):
    kids: list[Tree] = []


class Said(BaseModel):
    text: str


def app_with(**options: Any) -> App:
    app = App(channel_options=ChannelOptions(**options))
    chat = app.add_channel("/")

    @chat.on
    async def say(message: Say) -> Said:
        return Said(text=message.text)

    @chat.on
    async def strict(message: Strict | StrictTagged) -> int:
        return 1

    @chat.on
    async def tree(message: Tree) -> int:
        return 2

    @chat.on("numbers")
    async def numbers() -> AsyncIterator[int]:
        yield 1

    @chat.on("boom")
    async def boom() -> None:
        raise RuntimeError("secret")

    return app


def nested(depth: int) -> str:
    return '{"type":"tree","ref":1' + ',"kids":[{"kids":[' * 1 + '{"kids":[' * depth + "]}" * depth + "]}]}"


BAD: list[tuple[str | bytes, str, object, object]] = [
    ("nope", "invalid_json", None, []),
    ("", "invalid_json", None, []),
    ("1" * 5000, "invalid_json", None, []),
    ("[]", "invalid", None, []),
    ("7", "invalid", None, []),
    ("{}", "invalid", None, ["type"]),
    ('{"ref":1}', "invalid", 1, ["type"]),
    ('{"type":7,"ref":1}', "invalid", 1, ["type"]),
    ('{"type":"nobody","ref":1}', "unknown_type", 1, None),
    ('{"type":"reply","ref":1}', "unknown_type", 1, None),
    ('{"type":"say","ref":1}', "invalid", 1, ["text"]),
    ('{"type":"say","ref":1,"text":{"a":1}}', "invalid", 1, ["text"]),
    ('{"type":"say","ref":true,"text":"x"}', "invalid", None, ["ref"]),
    ('{"type":"say","ref":1.0,"text":"x"}', "invalid", None, ["ref"]),
    ('{"type":"say","ref":[],"text":"x"}', "invalid", None, ["ref"]),
    ('{"type":"say","ref":"' + "a" * 65 + '","text":"x"}', "invalid", None, ["ref"]),
    ('{"type":"say","ref":"\\ud800","text":"x"}', "invalid", None, ["ref"]),
    ('{"type":"say","ref":99999999999999999999,"text":"x"}', "invalid", None, ["ref"]),
    ('{"type":"say","ref":1,"text":7,"x":"\\ud800"}', "invalid", 1, ["text"]),
    ('{"type":"strict","ref":1,"text":"x","more":1}', "invalid", 1, ["more"]),
    ('{"type":"numbers"}', "ref_required", None, None),
    (nested(250), "invalid_json", 1, None),
    (b"\x00\xff", "unexpected_binary", None, None),
    ('{"type":"cancel"}', "invalid", None, ["ref"]),
]


@pytest.mark.parametrize(("message", "code", "ref", "loc"), BAD)
async def test_a_bad_message_is_answered_by_name_and_the_next_one_works(
    message: str | bytes, code: str, ref: object, loc: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with Server(app_with()) as server, server.connect("/") as peer:
        await peer.send(message)
        answer = await peer.receive_json()
        assert (answer["type"], answer["code"], answer.get("ref")) == ("error", code, ref)
        assert (answer["detail"][0]["loc"] if loc is not None else answer.get("detail")) == loc
        await peer.send('{"type":"say","ref":"after","text":"x"}')
        assert await peer.receive_json() == {"type": "reply", "ref": "after", "data": {"text": "x"}}
    assert "Traceback" not in caplog.text


GOOD: list[tuple[str, object]] = [
    ('{"type":"strict","ref":1,"text":"x"}', 1),
    ('{"type":"tagged","ref":1}', 1),
    ('{"type":"say","type":"strict","ref":1,"text":"x"}', 1),
    ('{"type":"say","ref":1,"text":"\\ud800","more":NaN}', {"text": "\ud800"}),
    (nested(80), 2),
]


@pytest.mark.parametrize(("message", "data"), GOOD)
async def test_hard_messages_that_are_good_are_taken(message: str, data: object) -> None:
    async with Server(app_with()) as server, server.connect("/") as peer:
        await peer.send(message)
        assert (await peer.receive_json()).get("data") == data


async def test_neither_the_input_nor_anything_internal_stands_in_an_error() -> None:
    async with Server(app_with()) as server, server.connect("/") as peer:
        secret = "hunter2" * 50
        for message in (
            {"type": secret, "ref": 1},
            {"type": "say", "text": [secret]},
            {"type": "strict", "text": "x", "k" * 5000: secret},
            {"type": "boom"},
        ):
            await peer.send_json(message)
            text = await peer.receive()
            assert isinstance(text, str)
            assert "hunter2" not in text
            assert "secret" not in text
            assert len(text) < 1000
        for said, words in (
            ("1" * 5000, "a number has too many digits"),
            ("\ufeff{}", "begins with a byte order mark"),
        ):
            await peer.send(said)
            text = await peer.receive()
            assert isinstance(text, str)
            assert words in text
            assert "sys." not in text
            assert "utf-8-sig" not in text


@pytest.mark.parametrize("policy", [OnInvalid.REPLY, OnInvalid.IGNORE])
async def test_the_twenty_first_mistake_in_a_minute_closes(policy: OnInvalid) -> None:
    async with Server(app_with(on_invalid=policy)) as server, server.connect("/") as peer:
        for _ in range(20):
            await peer.send("nope")
        await peer.send('{"type":"say","text":"x"}')
        await peer.receive_until("said")
        await peer.send("nope")
        assert await peer.wait_closed() == 1008
        assert peer.close_reason == "too many invalid messages"


@pytest.mark.parametrize(
    ("message", "code"),
    [("nope", 1007), (b"", 1003), ('{"type":"x"}', 1008), ('{"type":"say"}', 1008), ("x" * 5000, 1009)],
)
async def test_a_channel_may_close_over_a_bad_message(message: str | bytes, code: int) -> None:
    app = app_with(on_invalid=OnInvalid.CLOSE, max_message_size=4096)
    async with Server(app) as server, server.connect("/") as peer:
        await peer.send(message)
        assert await peer.wait_closed() == code


async def test_a_large_message_is_not_even_parsed_and_bytes_count_not_characters() -> None:
    async with Server(app_with(max_message_size=100)) as server, server.connect("/") as peer:
        for text, fits in (("x" * 60, True), ("x" * 90, False), ("é" * 30, True), ("é" * 45, False)):
            await peer.send(json.dumps({"type": "say", "text": text}, ensure_ascii=False))
            answer = await peer.receive_json()
            assert answer.get("code") == (None if fits else "too_big")
        await peer.send(b"x" * 101)
        assert (await peer.receive_json())["code"] == "too_big"


async def test_seventeen_megabytes_are_an_error_below_the_servers_limit_and_the_end_above_it() -> None:
    message = json.dumps({"type": "say", "ref": 1, "text": "x" * (17 * 2**20)})
    config = ServerConfig(max_message_size=2**25)
    async with Server(app_with(max_message_size=2**20), config=config) as server, server.connect("/") as peer:
        await peer.send(message)
        assert (await peer.receive_json())["code"] == "too_big"
        await peer.send('{"type":"say","ref":"after","text":"x"}')
        assert await peer.receive_json() == {"type": "reply", "ref": "after", "data": {"text": "x"}}
    async with Server(app_with()) as server, server.connect("/") as peer:
        await peer.send(message)
        assert await peer.wait_closed() == 1009


async def test_a_message_of_too_many_values_is_too_big() -> None:
    async with Server(app_with()) as server, server.connect("/") as peer:
        await peer.send('{"type":"say","text":[' + "1," * 100_001 + "1]}")
        assert (await peer.receive_json())["code"] == "too_big"


async def test_a_channel_may_close_over_an_error_nobody_expected(caplog: pytest.LogCaptureFixture) -> None:
    async with Server(app_with(on_error=OnError.CLOSE)) as server, server.connect("/") as peer:
        await peer.send('{"type":"boom","ref":1}')
        assert await peer.wait_closed() == 1011
    assert caplog.text.count("Traceback") == 1


async def test_the_keys_of_a_wire_can_be_others() -> None:
    app = App()
    chat = app.add_channel("/", options=ChannelOptions(wire=Wire(tag="action", ref="id", content="payload")))

    @chat.on
    async def say(message: Say, caller: Caller[Said]) -> int:
        await caller.send(Said(text=message.text))
        return 7

    @chat.on("numbers")
    async def numbers(message: list[int]) -> AsyncIterator[int]:
        for number in message:
            yield number

    @chat.on
    async def strict(message: Strict) -> None: ...

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send('{"action":"say","id":1,"payload":{"text":"\\ud800"}}')
        assert await peer.receive() == '{"action":"said","payload":{"text":"\\ud800"}}'
        assert await peer.receive() == '{"action":"reply","id":1,"payload":7}'
        await peer.send('{"action":"numbers","id":2,"payload":[5]}')
        assert await peer.receive() == '{"action":"item","id":2,"payload":5}'
        assert await peer.receive() == '{"action":"end","id":2}'
        await peer.send('{"action":"say","id":3}')
        answer = await peer.receive_json()
        assert (answer["action"], answer["id"], answer["payload"]["code"]) == ("error", 3, "invalid")
        await peer.send('{"action":"strict","id":4,"payload":{"text":"x"}}')
        assert await peer.receive() == '{"action":"reply","id":4}'
    async with Server(app) as server:
        async with server.channel("/", wire=Wire(tag="action", ref="id", content="payload")) as typed:
            assert await typed.request(Say(text="x"), int) == 7
            assert await typed.receive_as(Said) == Said(text="x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
TAGS = st.sampled_from(["say", "strict", "tagged", "tree", "numbers", "cancel", "reply", "boom"])
MESSAGES = st.builds(
    lambda tag, ref, more: json.dumps({**more, "type": tag, "ref": ref}),
    TAGS | JSON,
    JSON,
    st.dictionaries(st.sampled_from(["text", "kids", "x", "type"]), JSON),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MESSAGES | st.binary(max_size=40) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)))
async def test_no_bytes_make_a_traceback_of_ours(messages: list[str | bytes]) -> None:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Keep()
    logging.getLogger("antiphon").addHandler(handler)
    try:
        async with Server(app_with(invalid_limit=None)) as server, server.connect("/") as peer:
            for message in messages:
                await peer.send(message)
            await peer.send('{"type":"say","ref":"the last","text":"x"}')
            await peer.receive_until(lambda frame: frame.get("ref") == "the last")
    finally:
        logging.getLogger("antiphon").removeHandler(handler)
    assert not [one for one in records if one.exc_info and "boom" not in one.getMessage()]


async def test_an_error_of_the_applications_is_sent_whatever_its_text_is() -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on("find")
    async def find() -> None:
        raise HTTPException(404, "no \ud800 here")

    async with Server(app) as server, server.connect("/") as peer:
        for ref in (1, 2):
            await peer.send_json({"type": "find", "ref": ref})
            assert (await peer.receive_json())["message"] == "no \ud800 here"
