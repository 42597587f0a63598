"""Requests: the order of answers, the number at a time, and interruptions."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import uvloop
from pydantic import BaseModel

from antiphon import (
    App,
    BackendUnavailable,
    BackgroundTasks,
    Caller,
    ChannelOptions,
    Depends,
    HTTPException,
    MessageError,
    ServerConfig,
    WebSocket,
    WebSocketException,
)
from antiphon.messages.requests import Requests
from antiphon.testing import ConnectionEnded, RemoteError, Server
from antiphon.wire import Phase
from tests.patience import PATIENCE, until


class Wait(BaseModel):
    number: int


class Say(BaseModel):
    text: str = ""


class Said(BaseModel):
    text: str


class Ping(BaseModel): ...


class Pong(BaseModel):
    at: int = 1


class Count(BaseModel):
    upto: int = 10**6


class Muted(MessageError):
    """You may not write for now."""

    seconds: int


async def test_requests_are_answered_in_the_order_in_which_they_came() -> None:
    app = App()
    chat = app.add_channel("/")
    turns: list[int] = []

    @chat.on
    async def wait(message: Wait) -> int:
        for _ in range(message.number % 3):
            await asyncio.sleep(0)
        turns.append(message.number)
        return message.number

    async with Server(app) as server, server.connect("/") as peer:
        for number in range(20):
            await peer.send_json({"type": "wait", "ref": number, "number": number})
        answers = [await peer.receive_json() for _ in range(20)]
    assert [answer["ref"] for answer in answers] == [answer["data"] for answer in answers] == list(range(20)) == turns


@pytest.mark.parametrize("count", [2, 4])
async def test_a_concurrent_handler_works_on_so_many_at_a_time_and_then_nothing_more_is_read(count: int) -> None:
    app = App()
    chat = app.add_channel("/")
    gate = asyncio.Event()
    running: set[int] = set()
    most = 0

    @chat.on(concurrent=count)
    async def wait(message: Wait) -> int:
        nonlocal most
        running.add(message.number)
        most = max(most, len(running))
        await gate.wait()
        running.discard(message.number)
        return message.number

    @chat.on
    async def ping(message: Ping) -> Pong:
        return Pong()

    async with Server(app) as server, server.connect("/") as peer:
        for number in range(20):
            await peer.send_json({"type": "wait", "ref": number, "number": number})
        await peer.send_json({"type": "ping", "ref": "last"})
        await until(lambda: len(running) >= count)
        await peer.receive_nothing(0.02)
        assert len(running) == count
        gate.set()
        answers = [await peer.receive_json() for _ in range(21)]
    assert most == count
    assert {answer["ref"] for answer in answers} == {*range(20), "last"}


async def test_a_handler_that_sleeps_leaves_thousands_of_messages_with_the_server() -> None:
    app = App()
    chat = app.add_channel("/")
    gate = asyncio.Event()
    started = 0

    @chat.on
    async def say(message: Say) -> None:
        nonlocal started
        started += 1
        await gate.wait()

    async with Server(app, config=ServerConfig(inbound_bytes=4096)) as server, server.connect("/") as peer:
        for _ in range(5000):
            await peer.send_json({"type": "say", "text": "x" * 100})
        await until(lambda: started == 1)
        session: Any = next(iter(server.engine.sessions))
        await until(lambda: session.pipe.reading_paused)
        assert started == 1
        gate.set()
        await until(lambda: started == 5000)


async def test_each_kind_of_answer_has_its_frame() -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on
    async def ping(message: Ping) -> Pong:
        return Pong()

    @chat.on
    async def say(message: Say) -> None: ...

    @chat.on("number")
    def number() -> list[int]:
        return [1, 2]

    @chat.on("letters")
    async def letters() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    async with Server(app) as server, server.connect("/") as peer:

        async def asked(message: dict[str, Any], count: int = 1) -> list[str | bytes]:
            await peer.send_json(message)
            return [await peer.receive() for _ in range(count)]

        assert await asked({"type": "ping"}) == ['{"type":"pong","at":1}']
        assert await asked({"type": "ping", "ref": 1}) == ['{"type":"reply","ref":1,"data":{"at":1}}']
        assert await asked({"type": "say", "ref": "a\n"}) == ['{"type":"reply","ref":"a\\n"}']
        assert await asked({"type": "number", "ref": 2}) == ['{"type":"reply","ref":2,"data":[1,2]}']
        assert await asked({"type": "letters", "ref": 3}, 3) == [
            '{"type":"item","ref":3,"data":"a"}',
            '{"type":"item","ref":3,"data":"b"}',
            '{"type":"end","ref":3}',
        ]
        await asked({"type": "say"}, 0)
        await asked({"type": "number", "ref": None}, 0)
        await peer.receive_nothing(0.02)


async def test_a_stream_ends_where_the_client_leaves_it_and_its_dependency_with_it() -> None:
    app = App()
    chat = app.add_channel("/")
    told: list[str] = []

    async def open_session() -> AsyncIterator[str]:
        try:
            yield "s"
        except asyncio.CancelledError:
            told.append("rolled back")
            raise
        finally:
            told.append("torn down")

    @chat.on
    async def count(message: Count, session: str = Depends(open_session)) -> AsyncIterator[int]:
        try:
            for number in range(message.upto):
                yield number
        finally:
            told.append("closed")

    async with Server(app) as server, server.channel("/") as peer:
        async with peer.stream(Count(), int) as numbers:
            async for number in numbers:
                if number == 5:
                    break
        assert told[0] == "closed"
        assert told[-1] == "torn down"
        async with peer.stream(Count(upto=3), int) as numbers:
            assert [number async for number in numbers] == [0, 1, 2]


@pytest.mark.parametrize("leave", ["close", "drop"])
async def test_a_stream_ends_with_its_client_also_while_the_line_is_busy(leave: str) -> None:
    app = App()
    chat = app.add_channel("/")
    gate, closed = asyncio.Event(), asyncio.Event()

    @chat.on("wait_for_ever")
    async def silent() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    @chat.on
    async def say(message: Say) -> None:
        await gate.wait()

    async with Server(app) as server:
        async with server.connect("/") as peer:
            await peer.send_json({"type": "wait_for_ever", "ref": 1})
            await peer.receive_json()
            await peer.send_json({"type": "say"})
            if leave == "drop":
                peer.drop()
            else:
                await peer.close()
            await asyncio.wait_for(closed.wait(), PATIENCE)
        gate.set()


@pytest.mark.parametrize("leave", ["cancel", "close", "drop"])
async def test_a_stream_that_is_left_has_ended_within_a_tenth_of_a_second(leave: str) -> None:
    app = App()
    chat = app.add_channel("/")
    loop = asyncio.get_running_loop()
    ended = asyncio.Queue[float]()

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            ended.put_nowait(loop.time())

    @chat.on
    async def count(message: Count, session: None = Depends(session)) -> AsyncIterator[int]:
        for number in range(message.upto):
            yield number

    async def seconds(server: Server) -> float:
        async with server.connect("/") as peer:
            await peer.send_json({"type": "count", "ref": 1})
            for _ in range(5):
                assert (await peer.receive_json())["type"] == "item"
            left = loop.time()
            if leave == "cancel":
                await peer.send_json({"type": "cancel", "ref": 1})
            elif leave == "drop":
                peer.drop()
            else:
                await peer.close()
            async with asyncio.timeout(PATIENCE):
                return await ended.get() - left

    async with Server(app) as server:
        assert min([await seconds(server) for _ in range(5)]) < 0.1


@pytest.mark.parametrize(("options", "most"), [(ChannelOptions(), 16), (ChannelOptions(streams=2), 2)])
async def test_one_stream_too_many_is_busy(options: ChannelOptions, most: int) -> None:
    app = App(channel_options=options)
    chat = app.add_channel("/")

    @chat.on("listen")
    async def listen() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async with Server(app) as server, server.connect("/") as peer:
        for ref in range(most):
            await peer.send_json({"type": "listen", "ref": ref})
            assert (await peer.receive_json())["type"] == "item"
        await peer.send_json({"type": "listen", "ref": most})
        refused = await peer.receive_json()
        assert (refused["ref"], refused["code"]) == (most, "busy")
        await peer.send_json({"type": "listen", "ref": 1})
        answer = await peer.receive_json()
        assert (answer["code"], "ref" in answer) == ("duplicate_ref", False)
        await peer.send_json({"type": "cancel", "ref": 1})
        assert await peer.receive_json() == {"type": "end", "ref": 1}
        await peer.send_json({"type": "cancel", "ref": "nobody's"})
        await peer.send_json({"type": "listen", "ref": 1})
        assert (await peer.receive_json())["type"] == "item"


@pytest.mark.parametrize("concurrent", [1, 3])
async def test_a_request_that_takes_too_long_is_answered_so_and_the_next_one_works(concurrent: int) -> None:
    app = App()
    chat = app.add_channel("/")
    told: list[str] = []

    @chat.on(timeout=0.05, concurrent=concurrent)
    async def wait(message: Wait) -> int:
        try:
            if message.number:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise
        return message.number

    async with Server(app) as server, server.channel("/") as peer:
        for _ in range(2):
            with pytest.raises(RemoteError, match="timeout"):
                await peer.request(Wait(number=1), int)
            assert await peer.request(Wait(number=0), int) == 0
    assert told == ["cancelled", "cancelled"]


async def test_a_concurrent_request_can_be_cancelled_and_one_in_line_is_done_by_then() -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on("slow", concurrent=2)
    async def slow() -> int:
        await asyncio.Event().wait()
        return 1

    @chat.on
    async def ping(message: Ping) -> Pong:
        return Pong()

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "slow", "ref": 1})
        await peer.send_json({"type": "cancel", "ref": 1})
        answer = await peer.receive_json()
        assert (answer["type"], answer["ref"], answer["code"]) == ("error", 1, "cancelled")
        await peer.send_json({"type": "ping", "ref": 2})
        await peer.send_json({"type": "cancel", "ref": 2})
        assert (await peer.receive_json())["type"] == "reply"
        await peer.receive_nothing(0.02)


async def test_errors_say_what_the_application_says_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on(errors=[Muted])
    async def say(message: Say) -> int:
        match message.text:
            case "muted":
                raise Muted(seconds=30)
            case "forbidden":
                raise HTTPException(403)
            case "teapot":
                raise HTTPException(418, {"why": "short"})
            case "group":
                raise ExceptionGroup("tasks", [HTTPException(404, "no such room")])
        raise RuntimeError("the secret password is 1234")

    async with Server(app) as server, server.connect("/") as peer:

        async def error(text: str) -> Any:
            await peer.send_json({"type": "say", "ref": 1, "text": text})
            answer = await peer.receive_json()
            assert (answer.pop("type"), answer.pop("ref")) == ("error", 1)
            return answer

        assert await error("muted") == {
            "code": "muted",
            "message": "You may not write for now.",
            "detail": {"seconds": 30},
        }
        assert await error("forbidden") == {"code": "forbidden", "message": "Forbidden"}
        assert await error("teapot") == {"code": "im_a_teapot", "message": "I'm a Teapot", "detail": {"why": "short"}}
        assert await error("group") == {"code": "not_found", "message": "no such room"}
        assert caplog.text == ""
        assert await error("") == {"code": "internal", "message": "something went wrong"}
    assert caplog.text.count("Traceback") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_websocket_exception_closes(stream: bool) -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on
    async def say(message: Say) -> None:
        raise WebSocketException(4001, "enough")

    @chat.on
    async def count(message: Count) -> AsyncIterator[int]:
        yield 1
        raise WebSocketException(4001, "enough")

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "count" if stream else "say", "ref": 1})
        assert await peer.wait_closed() == 4001
        assert peer.close_reason == "enough"


async def test_an_answer_that_was_not_declared_is_internal_and_the_log_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on
    async def wait(message: Wait) -> int:
        return "no number"  # type: ignore[return-value]

    @chat.on
    async def say(message: Say):  # type: ignore[no-untyped-def]
        return 7

    @chat.on
    async def ping(message: Ping, caller: Caller[Said]) -> None:
        await caller.send(Pong())  # type: ignore[arg-type]

    async with Server(app) as server, server.channel("/") as peer:
        for message in (Wait(number=1), Say(), Ping()):
            with pytest.raises(RemoteError, match="internal"):
                await peer.request(message, int)
    assert "is not of the declared type, int" in caplog.text
    assert "declares no answer" in caplog.text
    assert "Caller[Pong]" in caplog.text


class Base(BaseModel):
    name: str


class Secret(Base):
    password: str


async def test_a_subclass_goes_out_as_what_was_declared() -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on("who")
    async def who(caller: Caller[Base]) -> Base:
        await caller.send(Secret(name="ann", password="x"))
        return Secret(name="ann", password="x")

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "who", "ref": 1})
        assert await peer.receive() == '{"type":"base","name":"ann"}'
        assert await peer.receive() == '{"type":"reply","ref":1,"data":{"name":"ann"}}'


@pytest.mark.parametrize("error", [RuntimeError("background"), BackendUnavailable("away")])
async def test_background_tasks_run_behind_the_answer_and_their_errors_are_only_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    chat = app.add_channel("/")
    told: list[str] = []

    async def fail() -> None:
        told.append("ran")
        raise error

    @chat.on
    async def say(message: Say, tasks: BackgroundTasks, websocket: WebSocket) -> int:
        tasks.add_task(websocket.send_text, "behind")
        tasks.add_task(fail)
        return 7

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "say", "ref": 1})
        assert json.loads(await peer.receive())["data"] == 7
        assert await peer.receive() == "behind"
        await until(lambda: told)
        await peer.send_json({"type": "say"})
        assert await peer.receive() == "behind"
    assert "background task" in caplog.text
    assert ("Traceback" in caplog.text) is isinstance(error, RuntimeError)


async def test_binary_messages_and_unknown_ones_have_their_handlers() -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on_bytes
    async def upload(data: bytes, caller: Caller[Said]) -> None:
        await caller.send_bytes(data[::-1])
        if not data:
            raise Muted(seconds=1)

    @chat.fallback
    async def gateway(message: dict[str, Any]) -> dict[str, Any]:
        return message

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send(b"abc")
        assert await peer.receive() == b"cba"
        await peer.send(b"")
        assert await peer.receive() == b""
        assert (await peer.receive_json())["code"] == "muted"
        await peer.send('{"type":"what","ref":1,"x":"\\ud800"}')
        assert await peer.receive() == '{"type":"reply","ref":1,"data":{"type":"what","ref":1,"x":"\\ud800"}}'
        for reserved in ("reply", "error", "auth"):
            await peer.send(f'{{"type":"{reserved}","ref":2}}')
            assert (await peer.receive_json())["code"] == "unknown_type", "not the fallback's: it may hold a token"


async def test_a_stopping_server_lets_what_is_in_line_answer_and_ends_streams() -> None:
    app = App()
    chat = app.add_channel("/")
    gate, started = asyncio.Event(), asyncio.Event()

    @chat.on
    async def say(message: Say) -> int:
        started.set()
        await gate.wait()
        return 7

    @chat.on("late", concurrent=2)
    async def late() -> int:
        await gate.wait()
        return 8

    @chat.on("listen")
    async def listen() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    config = ServerConfig(stop_window=0.0, stop_grace=PATIENCE)
    async with Server(app, config=config) as server, server.connect("/") as peer, server.connect("/") as idle:
        async with server.connect("/") as aside:
            await peer.send_json({"type": "listen", "ref": 0})
            await peer.receive_json()
            await aside.send_json({"type": "late", "ref": 2})
            await peer.send_json({"type": "say", "ref": 1})
            await started.wait()
            await server.stop()
            assert await idle.wait_closed() == 1012
            assert peer.close_code is None
            gate.set()
            assert await peer.receive_json() == {"type": "reply", "ref": 1, "data": 7}
            assert await peer.wait_closed() == 1012
            assert await aside.receive_json() == {"type": "reply", "ref": 2, "data": 8}
            assert await aside.wait_closed() == 1012


async def test_a_handler_that_does_not_end_is_cancelled_when_the_grace_is_over() -> None:
    app = App()
    told: list[str] = []
    started = asyncio.Event()

    @app.channel("/")
    async def chat(websocket: WebSocket) -> AsyncIterator[None]:
        try:
            yield
        finally:
            told.append("left")

    @chat.on
    async def say(message: Say) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            told.append("cancelled")

    config = ServerConfig(stop_window=0.0, stop_grace=0.05, close_timeout=0.05)
    async with Server(app, config=config) as server:
        async with server.connect("/") as peer:
            await peer.send_json({"type": "say"})
            await started.wait()
            await server.stop()
            with pytest.raises(ConnectionEnded):
                await peer.receive()
    assert told == ["cancelled", "left"]


async def test_items_of_a_fast_stream_leave_room_for_others() -> None:
    app = App()
    chat = app.add_channel("/")
    sent = 0

    @chat.on
    async def count(message: Count) -> AsyncIterator[str]:
        nonlocal sent
        for _ in range(message.upto):
            sent += 1
            yield "x" * 1000

    async with Server(app, window=1024) as server, server.connect("/") as peer:
        peer.pause_reading()
        await peer.send_json({"type": "count", "ref": 1})
        session: Any = next(iter(server.engine.sessions))
        await until(lambda: sent > 100)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.02)
        assert session.pipe.buffered < 150_000
        peer.drop()


async def test_a_handler_that_a_bug_cancels_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on
    async def say(message: Say) -> None:
        raise asyncio.CancelledError

    async with Server(app) as server, server.channel("/") as peer:
        with pytest.raises(RemoteError, match="internal"):
            await peer.request(Say())
        with pytest.raises(RemoteError, match="internal"):
            await peer.request(Say())


async def test_the_clients_end_is_no_error_of_a_handler_at_work(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    chat = app.add_channel("/")
    started, gate, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @chat.on
    async def say(message: Say, caller: Caller[Said]) -> int:
        started.set()
        try:
            await gate.wait()
            for _ in range(100):
                await asyncio.sleep(0.002)
                await caller.send(Said(text="x"))
            return 7
        finally:
            over.set()

    with caplog.at_level(logging.INFO):
        async with Server(app) as server, server.connect("/") as peer:
            await peer.send_json({"type": "say", "ref": 1})
            await started.wait()
            peer.drop()
            await until(lambda: not any(cast("Any", one).pipe.state == Phase.OPEN for one in server.engine.sessions))
            gate.set()
            await asyncio.wait_for(over.wait(), PATIENCE)
    assert "Traceback" not in caplog.text


def test_a_deadline_that_is_almost_due_gives_way_to_an_earlier_one() -> None:
    """uvloop runs a call that is due within half a millisecond soon, and its handle has no time to compare with."""

    async def arm() -> None:
        loop, requests = asyncio.get_running_loop(), Requests(cast("WebSocket", None))
        now = loop.time()
        requests._arm(now + 0.0004)
        requests._arm(now + 0.0002)
        await until(lambda: requests._timer is None)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(arm())


@pytest.mark.parametrize("wrong", ["a number", object()])
async def test_an_error_whose_fields_cannot_be_sent_is_internal_and_the_connection_stays(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on(errors=[Muted])
    async def say(message: Say) -> int:
        if message.text:
            return 1
        raise Muted(seconds=wrong)

    async with Server(app) as server, server.channel("/") as peer:
        with pytest.raises(RemoteError, match="internal"):
            await peer.request(Say(), int)
        assert await peer.request(Say(text="x"), int) == 1
    assert caplog.text.count("Traceback") == 1
    assert "raise Muted(seconds=wrong)" in caplog.text
    assert "it cannot be sent: a value of Muted is not of the declared type" in caplog.text


async def test_the_base_of_errors_cannot_be_raised_itself(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on
    async def say(message: Say) -> None:
        raise MessageError("no")

    async with Server(app) as server, server.channel("/") as peer:
        with pytest.raises(RemoteError, match="internal"):
            await peer.request(Say())
    assert "MessageError is a base, and a subclass is raised" in caplog.text


async def test_none_is_no_answer_of_another_type(caplog: pytest.LogCaptureFixture) -> None:
    """A forgotten `return`. Pydantic writes null for any type, without a warning."""
    app = App()
    chat = app.add_channel("/")

    @chat.on
    async def wait(message: Wait) -> int:  # type: ignore[empty-body]
        pass

    @chat.on
    async def ping(message: Ping) -> Pong | None:
        return None

    async with Server(app) as server, server.channel("/") as peer:
        with pytest.raises(RemoteError, match="internal"):
            await peer.request(Wait(number=1), int)
        assert await peer.request(Ping(), Pong | None) is None
    assert "None is not of the declared type, int: a `return` may be missing" in caplog.text


async def test_a_class_or_a_dict_in_place_of_a_message_is_named_so(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on
    async def ping(message: Ping, caller: Caller[Said]) -> None:
        await caller.send(Said)  # type: ignore[arg-type]

    @chat.on
    async def say(message: Say, caller: Caller[Said]) -> None:
        await caller.send({"type": "said", "text": "x"})  # type: ignore[arg-type]

    async with Server(app) as server, server.channel("/") as peer:
        for message in (Ping(), Say()):
            with pytest.raises(RemoteError, match="internal"):
                await peer.request(message)
    assert "the class Said is no message: send an object, Said(...)" in caplog.text
    assert "a dict is none of the messages that this channel declares (Said)" in caplog.text
