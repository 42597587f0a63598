"""A model of the ASGI servers that are not ours, for `simulation`: their dialects, and a judge of an app's messages.

One `Connection` is one client and the server's end of it. The client writes and reads frames, stalls, closes or
vanishes. The server's reaction to that, and the time at which it tells the app, is its `Dialect`.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from antiphon.types import ASGIApp, Message

HIGH_WATER: Final = 300
"""Bytes that the socket of a client which does not read takes."""


class Refusal(enum.Enum):
    """The behaviour of `send` behind the end of the connection."""

    OSERROR = "OSError, as ASGI 2.4 says; RuntimeError behind a Close of the server's own"
    RUNTIME_ERROR = "OSError until the app has been told of the end, RuntimeError from then on"
    SWALLOWS = "nothing"


class Waits(enum.Enum):
    """Where `send` waits for a client that does not read."""

    BEFORE = "before it takes the message"
    BEHIND = "behind it"
    NEVER = "nowhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one server speaks ASGI."""

    name: str
    spec_version: str
    refusal: Refusal
    waits: Waits
    lost_code: int
    """The code of the disconnect message for a connection that was lost."""
    tells_close: bool = True
    """The client's Close comes with its code and reason, and not as a lost connection."""
    echoes_close: bool = True
    """The app's own Close is answered at once by a disconnect message that repeats it."""
    both_keys: bool = False
    reads_ahead: bool = False
    """Reads from the socket although the app has not received the earlier messages."""
    suspends: bool = False
    """Every `send` takes a turn of the loop."""
    denial: bool = True
    tells_stop: bool = True
    """A stop is a disconnect message with 1012 first, and not just a cancellation."""
    aborts: bool = True
    """The socket can be reached from `send` (uvicorn)."""


SANSIO = Dialect(name="uvicorn sansio", spec_version="2.4", refusal=Refusal.OSERROR, waits=Waits.BEFORE, lost_code=1005)
WSPROTO = Dialect(
    name="uvicorn wsproto",
    spec_version="2.4",
    refusal=Refusal.OSERROR,
    waits=Waits.BEFORE,
    lost_code=1005,
    both_keys=True,
)
LEGACY = Dialect(
    name="uvicorn legacy",
    spec_version="2.4",
    refusal=Refusal.RUNTIME_ERROR,
    waits=Waits.BEHIND,
    lost_code=1006,
    echoes_close=False,
    reads_ahead=True,
)
HYPERCORN = Dialect(
    name="hypercorn",
    spec_version="2.3",
    refusal=Refusal.SWALLOWS,
    waits=Waits.BEHIND,
    lost_code=1006,
    tells_close=False,
    echoes_close=False,
    both_keys=True,
    reads_ahead=True,
    tells_stop=False,
    aborts=False,
)
OLD = Dialect(
    name="old",
    spec_version="2.1",
    refusal=Refusal.SWALLOWS,
    waits=Waits.NEVER,
    lost_code=1006,
    both_keys=True,
    reads_ahead=True,
    suspends=True,
    denial=False,
    aborts=False,
)
DIALECTS: Final = (SANSIO, WSPROTO, LEGACY, HYPERCORN, OLD)


class End(enum.Enum):
    """The side that ended the connection first, as the server sees it."""

    CLIENT = "client"
    APP = "app"
    SERVER = "server"
    ABORTED = "aborted"


class Opening(enum.Enum):
    HANDSHAKE = enum.auto()
    OPEN = enum.auto()
    RESPONSE = enum.auto()
    REFUSED = enum.auto()
    CLOSED = enum.auto()


NEXT: Final = {
    Opening.HANDSHAKE: {
        "websocket.accept": Opening.OPEN,
        "websocket.close": Opening.REFUSED,
        "websocket.http.response.start": Opening.RESPONSE,
    },
    Opening.OPEN: {"websocket.send": Opening.OPEN, "websocket.close": Opening.CLOSED},
    Opening.RESPONSE: {"websocket.http.response.body": Opening.REFUSED},
    Opening.REFUSED: dict[str, Opening](),
    Opening.CLOSED: dict[str, Opening](),
}
"""ASGI WebSocket spec 2.5: the app's legal messages, and the states after them."""


class _Transport:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def abort(self) -> None:
        self._connection.lose(End.ABORTED)


class Connection:
    """One connection of the model server. Create it in the running loop. `run` is the server's task."""

    def __init__(self, app: ASGIApp, path: str, dialect: Dialect) -> None:
        self.dialect = dialect
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": dialect.spec_version},
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [],
            "subprotocols": ["chat"],
            "extensions": {"websocket.http.response": {}} if dialect.denial else {},
            "state": {},
        }
        if dialect.aborts:
            self.transport = _Transport(self)
        self.faults: list[str] = []
        """The app's violations of ASGI."""
        self.opening = Opening.HANDSHAKE
        self.sent: list[Message] = []
        """Messages that the server took."""
        self.seen: list[Message] = []
        """Messages that the client has read."""
        self.told: list[str | bytes] = []
        """The client's messages that the server has for the app."""
        self.end: End | None = None
        self.truth: tuple[int, str] = (1006, "")
        """How the connection ended, by RFC 6455 and as far as this server tells."""
        self.ended_at = 0.0
        self.told_end = False
        self.lost = False
        self.changed = asyncio.Event()
        self.over = False
        self.left_open = False
        """The app returned without an end: the client sees 1006."""
        self.has_stalled = False
        self._app = app
        self._said = Opening.HANDSHAKE
        """Where the app must take itself to be: `opening`, if the server has taken all it sent."""
        self._wire: deque[Message] = deque()
        self._queue: deque[Message] = deque([{"type": "websocket.connect"}])
        self._arrival: asyncio.Future[None] | None = None
        self._unread: list[Message] = []
        self._stalled = False
        self._writable = asyncio.Event()
        self._writable.set()
        if dialect.waits is Waits.BEFORE:
            self.writable = self._writable  # uvicorn's protocols have it

    # The client

    def say(self, payload: str | bytes) -> None:
        keys = {"text": None, "bytes": None} if self.dialect.both_keys else {}
        key = "text" if isinstance(payload, str) else "bytes"
        self._come({"type": "websocket.receive", **keys, key: payload})

    def leave(self, code: int | None, reason: str = "") -> None:
        """The client closes; without a code it is 1005."""
        self._come({"type": "websocket.disconnect", "code": code or 1005, "reason": reason})

    def vanish(self) -> None:
        """No Close, the TCP connection is gone."""
        self._come({"type": "lost"})

    def answer_close(self) -> None:
        self.lose(End.APP)

    def stall(self) -> None:
        self._stalled = self.has_stalled = True

    def read_on(self) -> None:
        self._stalled = False
        self.seen += self._unread
        self._unread.clear()
        self._writable.set()

    def _come(self, event: Message) -> None:
        self._wire.append(event)
        self._pump()

    # The server, reading

    def _pump(self) -> None:
        while self._wire and not self.lost and (self.dialect.reads_ahead or not self._queue):
            event = self._wire.popleft()
            if event["type"] == "lost":
                self.lose(End.CLIENT)
            elif event["type"] == "websocket.disconnect":
                self._heard_close(event)
            elif self.end is None:
                self.told.append(event["text"] if event.get("text") is not None else event["bytes"])
                self._tell(event)

    def _heard_close(self, event: Message) -> None:
        if self.end is None and self.dialect.tells_close:
            self._ended(End.CLIENT, event["code"], event["reason"])
            self._tell(event)
        asyncio.get_running_loop().call_soon(self.lose, End.CLIENT)

    def lose(self, end: End) -> None:
        """The socket is gone."""
        if self.lost:
            return
        self.lost = True
        self._ended(end, 1006, "")
        answers_close = self.opening is Opening.CLOSED and not self.dialect.echoes_close
        code = 1000 if answers_close else self.dialect.lost_code
        self._tell({"type": "websocket.disconnect", "code": 1006 if self.opening is Opening.HANDSHAKE else code})
        self._writable.set()

    def fail(self, code: int, reason: str, *, told: bool) -> None:
        """The server closes of its own accord: a message too big (`told` at once), or a ping without an answer."""
        if self.end is None and self.opening is Opening.OPEN:
            self._ended(End.SERVER, *((code, reason) if told else (1006, "")))
            if told:
                self._tell({"type": "websocket.disconnect", "code": code, "reason": reason})
            asyncio.get_running_loop().call_soon(self.lose, End.SERVER)

    def stop(self) -> None:
        """The server stops. Those who do not end by themselves are cancelled later."""
        if self.dialect.tells_stop and self.end is None:
            is_open = self.opening is Opening.OPEN
            self._ended(End.SERVER, 1012 if is_open else 1006, "")
            if is_open:
                self._tell({"type": "websocket.disconnect", "code": 1012})
            asyncio.get_running_loop().call_soon(self.lose, End.SERVER)

    def _ended(self, end: End, code: int, reason: str) -> None:
        if self.end is None:
            self.end = end
            self.ended_at = asyncio.get_running_loop().time()
            self.truth = (code, reason)
            self.changed.set()

    def _tell(self, message: Message) -> None:
        self._queue.append(message)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    # The server, towards the app

    async def run(self) -> None:
        try:
            await self._app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.faults.append(f"the app raised {error!r}")
        self.over = True
        self.changed.set()
        self.left_open = self.end is None
        self.lose(End.APP)

    async def receive(self) -> Message:
        if self.told_end:
            self.faults.append("receive() behind the disconnect message")
        if self._arrival is not None:
            self.faults.append("two receive() at one time")
        while not self._queue:
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        message = self._queue.popleft()
        self.told_end = message["type"] == "websocket.disconnect"
        self._pump()
        return message

    async def send(self, message: Message) -> None:
        before = self._said
        self._said = self._judged(message)
        try:
            if self.dialect.suspends:
                await asyncio.sleep(0)
            if self.dialect.waits is Waits.BEFORE:
                await self._writable.wait()
        except asyncio.CancelledError:
            self._said = before  # a message that was not taken may be sent again
            raise
        if (self.end is not None and not self._is_answering(message)) or self.lost:
            self._refuse(message)
            return
        self._take(message)
        if self.dialect.waits is Waits.BEHIND:
            await self._writable.wait()
            if self.lost and self.end is not End.APP and self.dialect.refusal is not Refusal.SWALLOWS:
                raise OSError

    def _is_answering(self, message: Message) -> bool:
        return self.end is End.APP and message["type"].startswith("websocket.http")

    def _judged(self, message: Message) -> Opening:
        kind = message["type"]
        if kind not in NEXT[self._said]:
            self.faults.append(f"{kind} when {self._said.name}")
            return self._said
        if kind == "websocket.send" and (message.get("text") is None) == (message.get("bytes") is None):
            self.faults.append(f"a message that is not either text or bytes: {message}")
        if kind == "websocket.close":
            if self._said is Opening.OPEN and not (1000 <= message["code"] < 5000):
                self.faults.append(f"close code {message['code']}")
            if len(message["reason"].encode()) > 123:
                self.faults.append("a reason that fits into no Close frame")
        if kind.startswith("websocket.http") and not self.dialect.denial:
            self.faults.append("a denial response to a server that knows none")
        return self._said if message.get("more_body", False) else NEXT[self._said][kind]

    def _refuse(self, message: Message) -> None:
        if self.dialect.refusal is Refusal.SWALLOWS:
            return
        closed_by_us = not self.lost and self.end is End.SERVER
        if closed_by_us or (self.dialect.refusal is Refusal.RUNTIME_ERROR and self.told_end):
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}', after sending 'websocket.close'.")
        raise OSError

    def _take(self, message: Message) -> None:
        self.sent.append(message)
        if not message.get("more_body", False):
            self.opening = NEXT[self.opening].get(message["type"], self.opening)
        if self.opening is Opening.CLOSED:
            self._ended(End.APP, message["code"], message["reason"])
            if self.dialect.echoes_close:
                self._tell({"type": "websocket.disconnect", "code": message["code"], "reason": message["reason"]})
        elif self.opening is Opening.REFUSED:
            self._ended(End.APP, 1006, "")
            self._tell({"type": "websocket.disconnect", "code": 1006})
        (self._unread if self._stalled else self.seen).append(message)
        if sum(_size(one) for one in self._unread) > HIGH_WATER and self.dialect.waits is not Waits.NEVER:
            self._writable.clear()
        self.changed.set()


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or b"")
