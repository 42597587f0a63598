"""Our server as any ASGI app sees it, and the app as its peer sees it (ASGI WebSocket spec 2.5)."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import pytest
import websockets
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from antiphon.server import ServerConfig
from antiphon.types import CARRIER_EXTENSION, Carrier

from .raw import CLOSE, TEXT, close_frame, connect, echo, frame, opened, request, serving, until


async def test_text_and_binary_messages_of_all_sizes_come_back_as_they_were_sent() -> None:
    async with serving(echo) as served:
        for compression in ("deflate", None):
            async with websockets.connect(f"{served}/", compression=compression, max_size=None) as client:
                for size in (0, 1, 125, 126, 65535, 65536, 1_000_000):
                    for message in ("é" * size, b"\xff" * size):
                        await client.send(message)
                        assert await client.recv() == message


async def test_a_fastapi_app_runs_unchanged() -> None:
    app = FastAPI()
    ended: list[tuple[int, str]] = []

    @app.websocket("/chat/{room}")
    async def chat(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        try:
            async for text in websocket.iter_text():
                await websocket.send_json({"room": room, "text": text})
            await websocket.receive_text()
        except (WebSocketDisconnect, RuntimeError):
            ended.append((1, str(websocket.client_state)))

    async with serving(app) as served:
        async with websockets.connect(f"{served}/chat/a") as client:
            await client.send("hello")
            assert await client.recv() == '{"room":"a","text":"hello"}'
        await until(lambda: ended)


async def test_the_scope_tells_what_the_client_asked_for() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-mine", b"1")]})

    async with serving(app, root_path="/root", lifespan="off") as served:
        async with websockets.connect(
            f"{served}/a%20b/%C3%A9?q=1&r=%20",
            subprotocols=[websockets.Subprotocol("a"), websockets.Subprotocol("b")],
            additional_headers={"X-Thing": "é".encode("latin-1").decode("latin-1")},
        ) as client:
            assert client.subprotocol == "b"
            assert client.response is not None
            assert client.response.headers["x-mine"] == "1"
            assert client.response.headers["server"] == "uvicorn"
            local = client.local_address
    (scope,) = scopes
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "ws"
    assert scope["path"] == "/root/a b/é"
    assert scope["raw_path"] == b"/root/a%20b/%C3%A9"
    assert scope["query_string"] == b"q=1&r=%20"
    assert scope["root_path"] == "/root"
    assert scope["subprotocols"] == ["a", "b"]
    assert scope["client"] == tuple(local[:2])
    assert scope["server"] == ("127.0.0.1", served.port)
    assert scope["state"] == {}
    assert "websocket.http.response" in scope["extensions"]
    assert isinstance(scope["extensions"][CARRIER_EXTENSION], Carrier)
    headers = dict(scope["headers"])
    assert headers[b"x-thing"] == "é".encode("latin-1")
    assert headers[b"sec-websocket-version"] == b"13"


async def test_what_scopes_have_in_common_is_in_memory_once() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "websocket.accept"})

    async with serving(app, lifespan="off") as served:
        for _ in range(2):
            async with opened(served.port):
                pass
    one, other = scopes
    assert one["server"] is other["server"]
    assert one["client"] != other["client"]
    for header, same in zip(one["headers"], other["headers"], strict=True):
        assert (header is same) == (header[0] != b"sec-websocket-key")


async def test_each_connection_gets_its_own_copy_of_the_lifespan_state() -> None:
    states: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["db"] = "the database"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        states.append(scope["state"])
        scope["state"]["mine"] = len(states)
        await send({"type": "websocket.accept"})

    async with serving(app) as served:
        for _ in range(2):
            async with websockets.connect(f"{served}/"):
                pass
    assert states == [{"db": "the database", "mine": 1}, {"db": "the database", "mine": 2}]


async def test_forwarded_addresses_reach_the_scope_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")
    clients: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append((scope["client"], scope["scheme"]))
        await send({"type": "websocket.accept"})

    async with serving(app, lifespan="off") as served:
        headers = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
        async with websockets.connect(f"{served}/x?y=1", additional_headers=headers):
            pass
    assert clients == [(("1.2.3.4", 0), "wss")]
    assert '1.2.3.4:0 - "WebSocket /x?y=1" [accepted]' in caplog.text


async def test_without_an_access_log_a_handshake_is_no_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("handlers", "propagate"):  # uvicorn sets them, for good
        monkeypatch.setattr(access := logging.getLogger("uvicorn.access"), name, getattr(access, name))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept" if scope["path"] == "/in" else "websocket.close"})

    async with serving(app, lifespan="off", access_log=False) as served:
        async with websockets.connect(f"{served}/in"):
            pass
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(f"{served}/out")
    assert '"WebSocket' not in caplog.text


async def test_a_subprotocol_that_was_not_offered_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "subprotocol": "mine"})

    async with serving(app, lifespan="off") as served:
        async with websockets.connect(f"{served}/") as client:
            assert client.subprotocol is None
    assert "did not offer" in caplog.text


async def test_the_disconnect_message_has_the_peers_code_and_reason() -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        messages.append(await receive())

    async with serving(app, lifespan="off") as served:
        client = await websockets.connect(f"{served}/")
        await client.close(3456, "tschüß")
        assert client.close_code == 3456
        async with opened(served.port) as raw:
            await raw.send(frame(CLOSE))
            assert await raw.frame() == (CLOSE, b"")
            await raw.ended()
        async with opened(served.port):
            pass
        await until(lambda: len(messages) == 3)
    assert messages == [
        {"type": "websocket.disconnect", "code": 3456, "reason": "tschüß"},
        {"type": "websocket.disconnect", "code": 1005, "reason": ""},
        {"type": "websocket.disconnect", "code": 1006, "reason": ""},
    ]


async def test_messages_before_a_close_are_delivered_before_the_disconnect() -> None:
    seen: list[Any] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(message["text"])
        seen.append(message["code"])

    async with serving(app, lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.send(frame(TEXT, b"1") + frame(TEXT, b"2") + close_frame(1001))
            assert (await raw.frame()).code == 1001
            go.set()
            await until(lambda: len(seen) == 3)
    assert seen == ["1", "2", 1001]


async def test_send_after_the_end_is_an_oserror_and_receive_after_the_disconnect_too() -> None:
    errors: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        for call in (lambda: send({"type": "websocket.send", "text": "x"}), receive):
            try:
                await call()
            except OSError as error:
                errors.append(error)

    async with serving(app, lifespan="off") as served:
        async with websockets.connect(f"{served}/"):
            pass
        await until(lambda: len(errors) == 2)


@pytest.mark.parametrize(
    ("fails", "accepts", "status", "code"),
    [(False, True, 101, 1000), (True, True, 101, 1011), (False, False, 500, None), (True, False, 500, None)],
)
async def test_how_an_app_leaves_decides_what_the_peer_sees(
    fails: bool, accepts: bool, status: int, code: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if accepts:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "first"})
        if fails:
            raise ValueError("a secret")

    async with serving(app, lifespan="off") as served:
        async with connect(served.port) as raw:
            await raw.send(request())
            head = await raw.read_head()
            assert head.split()[1] == str(status).encode()
            if code is not None:
                assert await raw.frame() == (TEXT, b"first")
                end = await raw.frame()
                assert end.code == code
                assert b"secret" not in end.payload
                await raw.send(frame(CLOSE, end.payload))
            rest = await raw.read_all()
            assert b"secret" not in rest
    assert caplog.text.count("Traceback") == int(fails)
    assert ("without completing handshake" in caplog.text) == (not accepts and not fails)


async def test_close_before_accept_is_403() -> None:
    after: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        after.append(await receive())
        with pytest.raises(RuntimeError, match=r"websocket\.accept"):
            await send({"type": "websocket.accept"})

    async with serving(app, lifespan="off") as served:
        with pytest.raises(websockets.InvalidStatus) as info:
            await websockets.connect(f"{served}/")
        assert info.value.response.status_code == 403
        await until(lambda: after)
    assert after == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@pytest.mark.parametrize("parts", [[b"no such room"], [b"no ", b"such ", b"room"], [b""]])
async def test_a_denial_response_is_sent_as_the_app_wrote_it(parts: list[bytes]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"x-why", b"because"), (b"content-type", b"text/x-test")]
        await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
        for part in parts[:-1]:
            await send({"type": "websocket.http.response.body", "body": part, "more_body": True})
        await send({"type": "websocket.http.response.body", "body": parts[-1]})

    async with serving(app, lifespan="off") as served:
        async with connect(served.port) as raw:
            await raw.send(request())
            head, _, body = (await raw.read_all()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"x-why: because" in head
    assert head.lower().count(b"content-type") == 1
    assert (b"content-length" in head.lower()) == (len(parts) == 1)
    assert body == b"".join(parts)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (["websocket.send"], r"websocket\.accept"),
        (["websocket.accept", "websocket.accept"], r"websocket\.send"),
        (["websocket.close", "websocket.send"], "ended the connection"),
        (["websocket.accept", "websocket.close", "websocket.send"], "ended the connection"),
        (["websocket.http.response.start", "websocket.accept"], r"http\.response\.body"),
    ],
)
async def test_a_message_out_of_turn_is_a_runtime_error_that_names_what_was_expected(
    messages: list[str], expected: str
) -> None:
    raised: list[RuntimeError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in messages[:-1]:
            await send({"type": kind, "status": 404})
        try:
            await send({"type": messages[-1], "text": "x", "status": 404})
        except RuntimeError as error:
            raised.append(error)

    async with serving(app, lifespan="off") as served:
        async with connect(served.port) as raw:
            await raw.send(request())
            await until(lambda: raised)
    assert pytest.raises(RuntimeError, match=expected)
    import re

    assert re.search(expected, str(raised[0])), raised


async def test_a_message_that_holds_nothing_or_the_wrong_type_is_the_apps_error() -> None:
    raised: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        for content in ({}, {"text": b"x"}, {"bytes": None, "text": None}):
            try:
                await send({"type": "websocket.send", **content})
            except (TypeError, ValueError) as error:
                raised.append(error)
        await send({"type": "websocket.send", "bytes": bytearray(b"ok"), "text": None})

    async with serving(app, lifespan="off") as served:
        async with websockets.connect(f"{served}/") as client:
            assert await client.recv() == b"ok"
    assert len(raised) == 3


@pytest.mark.parametrize("how", ["task", "future", "wait_for", "timeout"])
async def test_a_receive_that_is_given_up_loses_no_message(how: str) -> None:
    seen: list[Any] = []
    waiting = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if how == "task":
            task = asyncio.create_task(receive())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif how == "future":
            future = asyncio.ensure_future(receive())
            done, _ = await asyncio.wait({future}, timeout=0.01)
            assert not done
            future.cancel()
            await asyncio.wait({future})
        elif how == "wait_for":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 0.01)
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await receive()
        waiting.set()
        seen.extend([(await receive())["text"] for _ in range(3)])

    async with serving(app, lifespan="off") as served:
        async with websockets.connect(f"{served}/") as client:
            await waiting.wait()
            for text in ("1", "2", "3"):
                await client.send(text)
            await until(lambda: len(seen) == 3)
    assert seen == ["1", "2", "3"]


async def test_a_task_cancelled_after_its_message_came_leaves_the_message_for_the_next() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        carrier = scope["extensions"][CARRIER_EXTENSION]
        task = asyncio.create_task(receive())
        await asyncio.sleep(0)
        carrier.wake()  # like a message that arrives while another task runs
        task.cancel()
        await asyncio.wait({task})
        seen.append(task.cancelled())
        seen.append((await receive())["text"])

    async with serving(app, lifespan="off") as served:
        async with websockets.connect(f"{served}/") as client:
            await client.send("kept")
            await until(lambda: len(seen) == 2)
    assert seen == [True, "kept"]


async def test_two_receives_at_once_are_a_clear_error_and_the_first_goes_on() -> None:
    outcome: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        first = asyncio.create_task(receive())
        await asyncio.sleep(0)
        try:
            await receive()
        except RuntimeError as error:
            outcome.append(str(error))
        outcome.append((await first)["text"])

    async with serving(app, lifespan="off") as served:
        async with websockets.connect(f"{served}/") as client:
            await until(lambda: outcome)
            await client.send("x")
            await until(lambda: len(outcome) == 2)
    assert "at the same time" in outcome[0]
    assert outcome[1] == "x"


async def test_context_variables_of_the_app_survive_its_waits() -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        variable.set(scope["path"])
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            assert asyncio.current_task() is not None
            seen.append(variable.get())
            variable.set(variable.get() + "+")

    async with serving(app, lifespan="off") as served:
        async with websockets.connect(f"{served}/a") as a, websockets.connect(f"{served}/b") as b:
            for number in range(2):
                for client in (a, b):
                    await client.send("x")
                await until(lambda n=number: len(seen) == 2 * n + 2)  # type: ignore[misc]
    assert sorted(seen) == ["/a", "/a+", "/b", "/b+"]
    assert variable.get() == "none"


async def test_frames_sent_with_the_handshake_are_not_lost_when_our_protocol_gets_them() -> None:
    """uvicorn's HTTP protocols drop bytes behind the request in the same chunk. Later bytes are ours."""
    accept = asyncio.Event()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await accept.wait()
        await send({"type": "websocket.accept"})
        seen.append((await receive())["text"])

    async with serving(app, lifespan="off") as served:
        async with connect(served.port) as raw:
            await raw.send(request())
            await until(lambda: served.server is not None and served.server.server_state.tasks)
            await raw.send(frame(TEXT, b"early"))
            await asyncio.sleep(0.05)
            accept.set()
            await until(lambda: seen)
    assert seen == ["early"]


async def test_the_peers_close_is_answered_with_its_code_and_reason() -> None:
    async with serving(echo, lifespan="off") as served:
        async with opened(served.port) as raw:
            await raw.send(close_frame(4321, "bye"))
            assert await raw.frame() == (CLOSE, (4321).to_bytes(2, "big") + b"bye")
            assert await raw.read_all() == b""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly from Python 3.12 on")
async def test_apps_run_on_a_loop_whose_tasks_start_at_once() -> None:
    loop = asyncio.get_running_loop()

    def eager(loop: Any, coroutine: Any, **options: Any) -> Any:
        """As `asyncio.eager_task_factory`, which Python 3.13.0 and uvloop do not agree about."""
        return asyncio.Task(coroutine, loop=loop, **(options | {"eager_start": True}))

    async with serving(echo, lifespan="off") as served:
        loop.set_task_factory(eager)
        try:
            async with opened(served.port) as first, opened(served.port) as second:
                for number in range(10):
                    for raw in (first, second):
                        await raw.send(frame(TEXT, b"%d" % number) + frame(TEXT, b"again"))
                        assert [await raw.frame(), await raw.frame()] == [(TEXT, b"%d" % number), (TEXT, b"again")]
                await first.send(frame(TEXT, b"\xff"))
                assert (await first.frame()).code == 1007
        finally:
            loop.set_task_factory(None)


async def test_an_app_of_another_kind_than_a_coroutine_function_runs_too() -> None:
    class Old:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            return self.inner(scope, receive, send)

    async with serving(Old(echo), proxy_headers=False, interface="asgi3") as served:
        async with websockets.connect(f"{served}/") as client:
            await client.send("x")
            assert await client.recv() == "x"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (request().replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"), 426),
        (request().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
        (request().replace(b"GET", b"POST"), 405),
    ],
)
async def test_what_is_no_handshake_is_refused_before_the_app(head: bytes, status: int) -> None:
    called: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope)

    async with serving(app, ServerConfig(), lifespan="off") as served:
        async with connect(served.port) as raw:
            await raw.send(head)
            answer = await raw.read_all()
    assert answer.split()[1] == str(status).encode()
    assert not called


async def test_a_denial_with_a_header_that_would_split_the_response_is_the_apps_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"x-evil", b"1\r\nset-cookie: a=b")]
        await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})

    async with serving(app, lifespan="off") as served:
        async with connect(served.port) as raw:
            await raw.send(request())
            answer = await raw.read_all()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in answer
    assert caplog.text.count("Traceback") == 1


async def test_an_accept_with_a_header_that_is_the_handshakes_own_is_the_apps_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"Sec-WebSocket-Protocol", b"x")]})

    async with serving(app, lifespan="off") as served:
        async with connect(served.port) as raw:
            await raw.send(request())
            assert (await raw.read_all()).startswith(b"HTTP/1.1 500 ")


async def test_the_same_offer_of_compression_is_answered_alike_each_time() -> None:
    async with serving(echo) as served:
        for _ in range(3):
            async with opened(served.port, "/", "Sec-WebSocket-Extensions: permessage-deflate; unknown") as raw:
                await raw.send(frame(TEXT, b"x" * 300))
                assert await raw.frame() == (TEXT, b"x" * 300)
            async with connect(served.port) as raw:
                await raw.send(request("/", "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10"))
                assert b"server_max_window_bits=10" in await raw.read_head()
