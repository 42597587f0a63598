"""The client side of antiphon for Python: one object that outlives its connections.

Alone it speaks to any endpoint: the hub's events come in, anything goes out. With a channel it also has requests,
streams and typed errors. Needs `websockets` and `pydantic`. `runtime_py()` is all of it in one file, to be copied to
where antiphon is not installed. docs/clients.md tells the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Generic, Literal, Self, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .attempts import Address, Attempts, Token, TokenVia, UnusableOptions
from .outbox import Outbox
from .renewing import Renewing
from .standing import Places, Recovered
from .state import ClientState
from .waiting import Inbox, Pending, RemoteError, ToSend, Unread

__all__ = ["Client", "ClientState", "Recovered", "RemoteError"]

SILENCE: Final = "the server did not answer any more"
TOO_SLOW: Final = "the events were not read fast enough"
READ_AT_ONCE: Final = 32
"""Messages read in one turn of the loop. A chunk of the socket may hold thousands, and a stream's cancel would wait for
all of them."""
logger: Final = logging.getLogger("antiphon.client")

E = TypeVar("E", covariant=True)


class Client(Generic[E]):
    """A connection that comes back: `async with Client("wss://…") as client`. `async for event in client` gives the
    messages that come: JSON as its Python equivalent, other text as str, binary messages as bytes.

    `token()`, also async, is called for each attempt, and when the server says `auth_expiring`. The new token then
    goes out as `auth`. `token_via`: "header" (`Authorization: Bearer …`), "query" (as `token_parameter`, or `token`),
    "subprotocol" (behind `bearer`), "message" (first of all, as `auth`). `queue`: messages sent while there is no
    connection wait for one, at most `queue_limit` of them. False: they fail at once. Each call may say otherwise.
    `timeout`: seconds for an answer. `heartbeat`: seconds between two pings where nothing else comes. After two
    without a sign of life, the link is dead. `resume`: query parameter to topic, or to a prefix of it with `*`.
    `retry`: close codes from 4000 after which it still comes back. `address` may be a function that is called for each
    attempt. `positions`: the `positions` of an earlier client, by topic. `additional_headers` go with each handshake.
    Other keywords are those of `websockets.connect`. Belongs to the loop it was entered in.

        from antiphon.clients.runtime import Client

        async with Client("ws://localhost:8000/rooms/tea") as client:
            await client.send({"text": "hello"})
            async for event in client:
                print(event)
    """

    tells_recovered = False
    """Whether an iteration gives `Recovered` too. Without it, `joined` and `resync` are there as they came."""

    def __init__(
        self,
        address: Address,
        *,
        token: Token | None = None,
        token_parameter: str | None = None,
        token_via: TokenVia | None = None,
        queue: bool = False,
        queue_limit: int = 64,
        timeout: float | None = 30.0,
        heartbeat: float = 5.0,
        resume: Mapping[str, str] | None = None,
        positions: Mapping[str, str] | None = None,
        retry: tuple[int, ...] = (),
        additional_headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._attempts = Attempts(address, token, token_parameter, token_via, additional_headers or {}, retry, options)
        self._queue = queue
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._resume = {"since": "*"} if resume is None else dict(resume)
        self._state = ClientState(name="connecting")
        self._watchers: list[Callable[[ClientState], None]] = []
        self._refs = 0
        self._pending: dict[Any, Pending] = {}
        self._room = asyncio.Event()
        self._outbox = Outbox(queue_limit, self._room.set)
        self._inbox = Inbox()
        self._places = Places(positions or {})
        self._read = dict(positions or {})
        self._connection: ClientConnection | None = None
        self._running: asyncio.Task[None] | None = None
        self._renewal = Renewing(self._attempts, self.request)
        self._early = asyncio.Event()
        self._why = ""
        self._heard = 0.0

    async def __aenter__(self) -> Self:
        """Waits for the first connection, however long. Raises RemoteError `closed` where there will be none."""
        self._running = asyncio.create_task(self._run())
        try:
            return await self.opened()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def state(self) -> ClientState:
        """Where it stands now."""
        return self._state

    @property
    def positions(self) -> dict[str, str]:
        """Where each topic was read to, as `since` wants it: to keep for the next start."""
        return dict(self._read)

    @property
    def dropped(self) -> int:
        """Events that nobody wanted: the oldest, where nothing iterates over this client."""
        return self._inbox.dropped

    def watch(self, listener: Callable[[ClientState], None]) -> Callable[[], None]:
        """Calls with the state, now and at each change. Returns how to stop it."""
        self._watchers.append(listener)
        listener(self._state)
        return lambda: self._watchers.remove(listener) if listener in self._watchers else None

    async def opened(self) -> Self:
        """Waits for a connection. Raises RemoteError `closed` when there will be none."""
        opened = asyncio.get_running_loop().create_future()

        def check(state: ClientState) -> None:
            if (state.name == "open" or state.is_final) and not opened.done():
                opened.set_result(state.name == "open")

        unwatch = self.watch(check)
        try:
            if not await opened:
                raise self._gone()
        finally:
            unwatch()
        return self

    async def send(self, message: Any, *, queue: bool | None = None) -> None:
        """Sends: str and bytes as they are, anything else as JSON. Waits for room.

        Raises RemoteError `closed` where it neither went out nor waits for a connection.
        """
        data = message if isinstance(message, str | bytes) else _json(message)
        while not self._put(ToSend(data, self._queue if queue is None else queue)):
            if self._connection is None:
                raise self._gone()
            self._room.clear()
            await self._room.wait()

    async def request(
        self,
        type: str,
        fields: Any = None,
        answer: TypeAdapter[Any] | None = None,
        *,
        timeout: float | None = -1,
        queue: bool | None = None,
    ) -> Any:
        """Sends a message and waits for its answer.

        Raises RemoteError: the server's, `timeout`, or `closed`, and then it is not sent again.
        """
        pending = self._ask(type, fields, answer, queue, is_stream=False)
        seconds = self._timeout if timeout == -1 else timeout
        try:
            async with asyncio.timeout(seconds):
                return await pending.answer()
        except TimeoutError:
            raise RemoteError("timeout", f"no answer within {seconds} s") from None
        finally:
            self._withdraw(pending)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        type: str,
        fields: Any = None,
        item: TypeAdapter[Any] | None = None,
        *,
        timeout: float | None = -1,
        queue: bool | None = None,
    ) -> AsyncIterator[AsyncIterator[Any]]:
        """Sends a message that a stream answers. Leaving the block cancels it. `timeout`: until its first item."""
        pending = self._ask(type, fields, item, queue, is_stream=True)
        seconds = self._timeout if timeout == -1 else timeout
        try:
            try:
                async with asyncio.timeout(seconds):
                    await pending.something()
            except TimeoutError:
                raise RemoteError("timeout", f"no item within {seconds} s") from None
            yield pending
        finally:
            self._withdraw(pending)

    def __aiter__(self) -> Self:
        self._inbox.wanted = True
        return self

    async def __anext__(self) -> E:
        """Ends when the connection was closed with 1000, here or there. Other ends raise RemoteError `closed`."""
        while True:
            event = await self._inbox.get()
            if event is None:
                if self._state.code == 1000:
                    raise StopAsyncIteration
                raise self._gone()
            self._room.set()
            if event.topic is not None:
                self._read[event.topic] = event.position
            try:
                return self.decode(event.data)
            except LookupError:
                continue
            except ValidationError as error:
                logger.warning("an event is not of the declared type, and is left out: %s", error)

    def decode(self, event: Any) -> E:
        """The value that an iteration gives for an event. LookupError leaves it out. So does ValidationError, with a
        warning."""
        return cast(E, event)

    def content(self, fields: Any) -> dict[str, Any]:
        """The fields of a message, as JSON has them."""
        return {} if fields is None else cast(dict[str, Any], to_jsonable_python(fields, by_alias=True))

    def detail(self, code: str, detail: Any) -> Any:
        """The detail of an error with this code."""
        return detail

    def retry(self) -> None:
        """Tries again now, where a connection is waited for."""
        self._early.set()

    def reconnect(self) -> None:
        """Leaves this connection for a new one, now."""
        self._give_up("left for a new one")
        self._early.set()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Ends it for good."""
        connection = self._connection
        self._end(code, reason)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        if connection is not None:
            try:
                await connection.close(code, reason)
            except Exception:  # a code that cannot be sent, say
                connection.transport.abort()

    async def _run(self) -> None:
        try:
            await self._live()
        finally:
            self._end(1006, "the client was stopped")

    async def _live(self) -> None:
        attempts = self._attempts
        while True:
            self._become(ClientState(name="connecting", attempt=attempts.failures))
            self._early.clear()
            refusal = None
            try:
                connection, token = await attempts.connect(dict(self._places.query(self._resume)))
            except InvalidStatus as error:
                refusal = error
                code, reason = error.response.status_code, error.response.reason_phrase
                final, unauthorized = attempts.is_refusal(code), code == 401
            except UnusableOptions as error:
                code, reason, final, unauthorized = 1006, str(error), True, False
            except Exception as error:  # also exceptions of token() and address(): another attempt may go better
                code, reason, final, unauthorized = 1006, str(error) or type(error).__name__, False, False
            else:
                began = time.monotonic()
                code, reason = await self._serve(connection, token)
                attempts.lasted(time.monotonic() - began)
                unauthorized = attempts.is_unauthorized(code)
                final = unauthorized or attempts.is_final(code)
            if final:
                self._end(code, reason, "unauthorized" if unauthorized else "closed")
                return
            await self._wait(code, reason, attempts.delay(refusal))

    async def _wait(self, code: int, reason: str, delay: float) -> None:
        until = time.time() + delay
        attempt = self._attempts.failures
        self._become(ClientState(name="waiting", attempt=attempt, until=until, code=code, reason=reason))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._early.wait()
        await self._inbox.read_down()

    async def _serve(self, connection: ClientConnection, token: str | None) -> tuple[int, str]:
        """The life of one connection, which begins with a token if one is given. Returns how it ended."""
        self._connection = connection
        if token is not None:
            self._outbox.put_first(ToSend(_json({"type": "auth", "token": token}), waits=False))
        self._why = ""
        self._heard = time.monotonic()
        helpers = [asyncio.create_task(self._outbox.write(connection)), asyncio.create_task(self._look(connection))]
        self._become(ClientState(name="open"))
        try:
            for number in itertools.count(1):
                self._hear(await connection.recv())
                if number % READ_AT_ONCE == 0:
                    await asyncio.sleep(0)
                while self._inbox.full and not self._pending:
                    self._room.clear()
                    await self._room.wait()
                    self._heard = time.monotonic()
                if self._inbox.overfull:
                    self._give_up(TOO_SLOW)
        except ConnectionClosed:
            pass
        finally:
            self._connection = None
            helpers += self._renewal.stop()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._drop_unsent()
        if self._why:
            return 1006, self._why
        return int(connection.close_code or 1006), connection.close_reason or ""

    def _give_up(self, why: str) -> None:
        """A dead link would answer our Close never: it is not waited for."""
        if self._connection is not None and not self._why:
            self._why = why
            self._connection.transport.abort()

    async def _look(self, connection: ClientConnection) -> None:
        """Pings where nothing comes, and gives the link up where nothing answers.

        A loop that stood still heard nobody: that time is no silence of the server.
        """
        interval = self._heartbeat / 4
        while True:
            slept = time.monotonic()
            await asyncio.sleep(interval)
            self._heard += max(time.monotonic() - slept - 2 * interval, 0.0)
            if self._inbox.full and not self._pending:
                continue  # it is we who do not read
            quiet = time.monotonic() - self._heard
            if quiet >= 2 * self._heartbeat and self._state.silent:
                self._give_up(SILENCE)
            elif quiet >= 1.5 * self._heartbeat and not self._state.silent:
                self._become(ClientState(name="open", silent=True))
            elif quiet >= self._heartbeat / 2:
                with contextlib.suppress(ConnectionClosed, RuntimeError):
                    pong = asyncio.ensure_future(await connection.ping())
                    pong.add_done_callback(self._answered_ping)

    def _answered_ping(self, pong: asyncio.Future[float]) -> None:
        if not pong.cancelled() and pong.exception() is None:
            self._sign_of_life()

    def _sign_of_life(self) -> None:
        self._heard = time.monotonic()
        if self._state.silent and self._state.name == "open":
            self._become(ClientState(name="open"))

    def _drop_unsent(self) -> None:
        """Requests that went out get no answer any more. Unsent messages may wait."""
        waiting = self._outbox.keep_what_waits()
        for pending in list(self._pending.values()):
            if pending.ref not in waiting:
                self._finish(pending, RemoteError("closed", "the connection was lost before the answer came"))
        self._room.set()

    def _end(self, code: int, reason: str, name: Literal["closed", "unauthorized"] = "closed") -> None:
        if self._state.is_final:
            return
        self._become(ClientState(name=name, code=code, reason=reason))
        self._outbox.clear()
        for pending in list(self._pending.values()):
            self._finish(pending, self._gone())
        self._inbox.end()
        self._room.set()

    def _become(self, state: ClientState) -> None:
        if self._state.is_final:
            return
        self._state = state
        for listener in list(self._watchers):
            try:
                listener(state)
            except Exception:
                logger.exception("a listener to the state of a client failed")

    def _gone(self) -> RemoteError:
        if not self._state.is_final:
            return RemoteError("closed", "there is no connection")
        ending = f"{self._state.code} {self._state.reason}".strip()
        return RemoteError("closed", f"the connection was closed with {ending}", self._state)

    def _ask(
        self, type: str, fields: Any, adapter: TypeAdapter[Any] | None, queue: bool | None, *, is_stream: bool
    ) -> Pending:
        self._refs += 1
        ref = self._refs
        pending: Pending = Pending(ref, adapter, is_stream=is_stream)
        text = _json({"type": type, "ref": ref, **self.content(fields)} | {"type": type, "ref": ref})
        self._pending[ref] = pending
        self._room.set()
        if not self._put(ToSend(text, self._queue if queue is None else queue, pending)):
            full = self._connection is not None
            self._finish(pending, RemoteError("busy", "too much waits to be sent") if full else self._gone())
        return pending

    def _put(self, message: ToSend) -> bool:
        return not self._state.is_final and self._outbox.put(message, is_connected=self._connection is not None)

    def _finish(self, pending: Pending, error: BaseException | None = None) -> None:
        self._pending.pop(pending.ref, None)
        self._room.set()
        pending.end(error)

    def _withdraw(self, pending: Pending, error: RemoteError | None = None) -> None:
        """Nobody wants the answer any more."""
        if self._pending.get(pending.ref) is not pending:
            return
        self._finish(pending, error)
        self._outbox.remove(pending)
        if pending.sent and self._connection is not None:
            self._outbox.put_first(ToSend(_json({"type": "cancel", "ref": pending.ref}), waits=False))

    def _hear(self, data: str | bytes) -> None:
        self._sign_of_life()
        event: Any = data
        if isinstance(data, str):
            try:
                event = json.loads(data)
            except (ValueError, RecursionError):
                pass  # a text, then
        tag = event.get("type") if isinstance(event, dict) else None
        topic = event.get("topic") if tag in ("joined", "message", "resync") else None
        self._places.settle(topic)
        if tag != "error":
            self._attempts.heard()
        if tag == "auth_expiring":
            self._renewal.begin(event.get("expires_in"))
        if tag == "heartbeat" and event.keys() <= {"type", "interval"}:
            return  # with fields it is the application's
        if tag in ("reply", "item", "end", "error") and event.get("ref") is not None:
            self._answered(tag, event, len(data))
            return
        if tag == "message" and not self._places.is_new(event):
            return
        if tag == "resync":
            self._places.missed(topic)
        came_back = tag == "joined" and self._places.joined(event)
        position = self._places.position(topic) if tag == "message" else None
        self._inbox.put(Unread(event, len(data), None if position is None else topic, position or ""))
        if self.tells_recovered and (came_back or (tag == "resync" and isinstance(topic, str))):
            recovered = tag == "joined" and event.get("recovered") is True
            self._inbox.put(Unread(Recovered(str(event.get("topic")), recovered), 0))

    def _answered(self, tag: str, event: Mapping[str, Any], size: int) -> None:
        ref = event["ref"]
        pending = self._pending.get(ref) if isinstance(ref, int | str) else None
        if pending is None:
            return
        if tag == "item":
            if pending.is_stream and not pending.take(event.get("data"), size):
                self._withdraw(pending, RemoteError("too_slow", "the items of this stream were not read fast enough"))
        elif tag == "error":
            code = str(event.get("code"))
            detail = self.detail(code, event.get("detail"))
            self._finish(pending, RemoteError(code, str(event.get("message") or code), detail))
        else:
            if not pending.is_stream and "data" in event:
                pending.take(event["data"], 0)
            self._finish(pending)


def _json(value: Any) -> str:
    return json.dumps(to_jsonable_python(value, by_alias=True), separators=(",", ":"), allow_nan=False)
