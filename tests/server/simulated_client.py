"""A client of random manners: reads promptly, slowly or not at all, answers or does not, breaks every rule or none.

wsproto, which shares no code with the server, reads the server's messages and makes the client's compressed ones.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from tests.server.raw import BINARY, CLOSE, CONT, PING, PONG, TEXT, close_frame, frame
from tests.server.simulated_line import ClientEnd

PATIENCE: Final = 40.0
"""Seconds that a client waits for a server's answer, longer than the server's own timeouts."""

HELLOS_OF_OTHERS: Final = ("early", "garbage", "huge", "old", "half", "half-eof", "nothing")

Payload = str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How a client behaves."""

    hello: str
    read_delay: float
    read_size: int
    answers_pings: bool
    answers_close: bool
    lingers: bool
    """Does not close its side when the server has."""
    stalls_at: float | None
    stalls_for: float
    steps: int
    pace: float
    largest: int
    kinds: tuple[type[Payload], ...]
    ending: str
    offer: dict[str, int | bool] | None

    @property
    def prompt(self) -> bool:
        """Gives the server no reason to lose patience."""
        return (
            (self.hello in ("whole", "cut") and self.read_delay <= 0.01 and self.read_size >= 1 << 16)
            and (self.answers_pings and self.answers_close and not self.lingers and self.stalls_at is None)
            and self.ending in ("close", "silence", "violation")
        )


def draw_manners(rng: random.Random, *, largest: int) -> Manners:
    well = rng.random() < 0.4
    hello = rng.choice(
        ["whole"] * 12 + ["cut"] * 4 + ["early", "garbage", "huge", "old", "half", "half-eof", "nothing"]
    )
    kinds: tuple[type[Payload], ...] = rng.choice([(str,), (bytes,), (str, bytes)])
    offer: dict[str, int | bool] | None = None
    if rng.random() < 0.5:
        offer = {
            "client_no_context_takeover": rng.random() < 0.5,
            "server_no_context_takeover": rng.random() < 0.5,
            "client_max_window_bits": rng.choice([9, 12, 15]),
            "server_max_window_bits": rng.choice([9, 12, 15]),
        }
    return Manners(
        hello=rng.choice(["whole", "cut"]) if well else hello,
        read_delay=0.01 if well else rng.choice([0, 0.01, 0.3]),
        read_size=1 << 16 if well else rng.choice([3, 200, 1 << 16]),
        answers_pings=well or rng.random() < 0.8,
        answers_close=well or rng.random() < 0.8,
        lingers=not well and rng.random() < 0.1,
        stalls_at=None if well or rng.random() < 0.7 else rng.random() * 3,
        stalls_for=rng.choice([0.5, 4, 100]),
        steps=rng.choice([0, 3, 20]),
        pace=rng.choice([0, 0.01, 0.5]),
        largest=largest,
        kinds=kinds,
        ending=rng.choice(["close", "silence", "violation"] + ([] if well else ["finish", "reset", "leave", "flood"])),
        offer=offer,
    )


@dataclass(slots=True)
class Seen:
    """The actions and observations of the client."""

    sent: list[Payload] = field(default_factory=list)
    """Whole messages."""
    close_sent: int | None = None
    """Its code; 1005 for none."""
    violated: int | None = None
    """The close code that its violation deserves."""
    vanished: bool = False
    finished: bool = False
    """It has said FIN behind all it said."""
    status: int | None = None
    body: bytearray = field(default_factory=bytearray)
    received: list[Payload] = field(default_factory=list)
    pings: int = 0
    pongs: list[bytes] = field(default_factory=list)
    pinged: list[bytes] = field(default_factory=list)
    close: tuple[int, str] | None = None
    behind_close: int = 0
    invalid: str | None = None
    reset: bool = False


class Client:
    """One client's life: `await live()`."""

    def __init__(self, line: ClientEnd, manners: Manners, rng: random.Random, path: str) -> None:
        self.seen = Seen()
        self.manners = manners
        self._line = line
        self._rng = rng
        self._reading_rng = random.Random(rng.random())
        self._path = path
        self._head = bytearray()
        self._protocol: FrameProtocol | None = None
        self._deflates = False
        self._answered = asyncio.Event()
        self._over = asyncio.Event()
        self._silent = False
        """Sends nothing more."""
        self._fragments: list[Payload] = []

    async def live(self) -> None:
        await self._line.connected.wait()
        reading = asyncio.create_task(self._read())
        try:
            await self._act()
        finally:
            self._silent = True
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._over.wait()
            except TimeoutError:
                self.seen.vanished = True
            finally:
                reading.cancel()
                self._line.leave()

    # ------------------------------------------------------------ reading

    async def _read(self) -> None:
        rng, manners = self._reading_rng, self.manners
        loop = asyncio.get_running_loop()
        stalls_at = None if manners.stalls_at is None else loop.time() + manners.stalls_at
        try:
            while True:
                await self._line.readable.wait()
                await asyncio.sleep(rng.random() * manners.read_delay)
                if stalls_at is not None and loop.time() >= stalls_at:
                    stalls_at = None
                    await asyncio.sleep(manners.stalls_for)
                data = self._line.take(rng.randint(1, manners.read_size) if manners.read_size < 1 << 16 else 1 << 20)
                if data is None:
                    break
                self._take(data)
        except ConnectionError:
            self.seen.reset = True
        self._silent = True
        self._answered.set()
        if not manners.lingers:
            self._line.leave()
            self._over.set()

    def _take(self, data: bytes) -> None:
        seen = self.seen
        if seen.status is None:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._understand(bytes(head))
            data = bytes(rest)
        if self._protocol is None:
            seen.body += data
        elif seen.close is not None:
            seen.behind_close += len(data)
        elif data:
            self._take_frames(self._protocol, data)

    def _understand(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.seen.status = int(lines[0].split()[1])
        if self.seen.status == 101:
            extension = PerMessageDeflate(**self.manners.offer or {})  # type: ignore[arg-type]
            if agreed := headers.get("sec-websocket-extensions"):
                extension.finalize(agreed)
                self._deflates = True
            self._protocol = FrameProtocol(client=True, extensions=[extension])
        self._answered.set()

    def _take_frames(self, protocol: FrameProtocol, data: bytes) -> None:
        seen = self.seen
        protocol.receive_bytes(data)
        try:
            for one in protocol.received_frames():
                self._react(one.opcode, one.payload)
                if one.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION) and one.message_finished:
                    parts, self._fragments = self._fragments, []
                    seen.received.append(parts[0][:0].join(parts))  # type: ignore[arg-type]
        except ParseFailed as error:
            seen.invalid = str(error)
        if seen.close is not None:
            seen.behind_close += len(protocol._frame_decoder.buffer)

    def _react(self, opcode: Opcode, payload: Any) -> None:
        seen = self.seen
        if opcode is Opcode.PING:
            seen.pings += 1
            if self.manners.answers_pings:
                self._send(frame(PONG, bytes(payload)))
        elif opcode is Opcode.PONG:
            seen.pongs.append(bytes(payload))
        elif opcode is Opcode.CLOSE:
            code, reason = payload
            seen.close = int(code), reason or ""
            if seen.close_sent is None and seen.violated is None and self.manners.answers_close:
                self._send(close_frame(int(code)) if code != 1005 else frame(CLOSE))
            self._silent = True
        else:
            self._fragments.append(payload if isinstance(payload, str) else bytes(payload))

    # ------------------------------------------------------------ acting

    def _send(self, data: bytes) -> None:
        if not self._silent and data:
            self._line.send(data)

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.random() * self.manners.pace)

    async def _act(self) -> None:
        await self._greet()
        await self._answered.wait()
        if self._protocol is None:
            return
        for _ in range(self.manners.steps):
            if self._silent:
                return
            await self._step()
            await self._pause()
        if not self._silent:
            await self._end(self.manners.ending)

    async def _greet(self) -> None:
        rng, hello = self._rng, self.manners.hello
        lines = [
            f"GET {self._path} HTTP/1.1",
            "Host: server",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(rng.randbytes(16)).decode()}",
            f"Sec-WebSocket-Version: {7 if hello == 'old' else 13}",
        ]
        if self.manners.offer is not None:
            extension = PerMessageDeflate(**self.manners.offer)  # type: ignore[arg-type]
            lines.append(f"Sec-WebSocket-Extensions: permessage-deflate; {extension.offer()}")
        if hello == "huge":
            lines.append("X-Long: " + "x" * 100_000)
        request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        if hello == "garbage":
            request = rng.choice([b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"])
        if hello == "cut":
            middle = rng.randrange(len(request))
            self._send(request[:middle])
            await asyncio.sleep(rng.random())
            self._send(request[middle:])
        elif hello == "early":
            payload = self._payload()
            self.seen.sent.append(payload)
            self._send(request + _whole(payload))
        elif hello in ("half", "half-eof", "nothing"):
            self._send(request[: 0 if hello == "nothing" else rng.randrange(len(request))])
            if hello == "half-eof":
                await asyncio.sleep(rng.random())
                self._vanish(self._line.finish)
        else:
            self._send(request)
        if hello in ("whole", "cut", "early") and not self.manners.prompt and rng.random() < 0.05:
            await asyncio.sleep(rng.random())
            self._vanish(rng.choice([self._line.finish, self._line.reset, self._line.leave]))

    def _vanish(self, how: Callable[[], None]) -> None:
        self.seen.vanished = True
        self.seen.finished = how == self._line.finish
        self._silent = True
        how()

    def _payload(self, most: int | None = None) -> Payload:
        rng = self._rng
        most = min(self.manners.largest, self.manners.largest if most is None else most)
        size = min(rng.choice([0, 1, 5, 125, 126, 127, 1000, 4000, 65535, 65536, 200_000]), most)
        size = rng.choice([size, rng.randint(0, size)])
        if rng.choice(self.manners.kinds) is bytes:
            return rng.randbytes(size) if rng.random() < 0.5 else bytes(size)
        return rng.choice(["a" * size, "é" * (size // 2), "\U0001f642" * (size // 4)])

    async def _step(self) -> None:
        rng = self._rng
        kind = rng.random()
        if kind < 0.15:
            self._ping()
        elif kind < 0.2:
            self._send(frame(PONG, b"nobody asked"))
        elif kind < 0.5:
            self._say(self._payload())
        elif kind < 0.6:
            for _ in range(rng.randint(2, 30)):
                self._say(self._payload(200))
        else:
            await self._say_in_fragments(self._payload())

    def _ping(self) -> None:
        payload = self._rng.randbytes(self._rng.choice([0, 1, 125]))
        if not self._silent:
            self.seen.pinged.append(payload)
        self._send(frame(PING, payload))

    def _say(self, payload: Payload) -> None:
        if self._silent:
            return
        if self._deflates and self._rng.random() < 0.7:
            assert self._protocol is not None
            self._send(bytes(self._protocol.send_data(payload)))
        else:
            self._send(_whole(payload))
        self.seen.sent.append(payload)

    async def _say_in_fragments(self, payload: Payload) -> None:
        rng = self._rng
        compressed = self._deflates and rng.random() < 0.7
        whole = payload if compressed or isinstance(payload, bytes) else payload.encode()
        cuts = [0, *sorted(rng.randint(0, len(whole)) for _ in range(rng.randint(0, 4))), len(whole)]
        opcode = TEXT if isinstance(payload, str) else BINARY
        for number, (start, end) in enumerate(itertools.pairwise(cuts), 2):
            if self._silent:
                return
            fin = number == len(cuts)
            if compressed:
                assert self._protocol is not None
                self._send(bytes(self._protocol.send_data(whole[start:end], fin=fin)))
            else:
                self._send(frame(opcode, whole[start:end], fin=fin))  # type: ignore[arg-type]
                opcode = CONT
            if not fin and rng.random() < 0.3:
                self._ping()
            if not fin and rng.random() < 0.3:
                await self._pause()
        self.seen.sent.append(payload)

    # ------------------------------------------------------------ the end

    async def _end(self, how: str) -> None:
        rng = self._rng
        if how == "close":
            code = rng.choice([1000, 1001, 3000, 4999, 1005])
            self._send(frame(CLOSE) if code == 1005 else close_frame(code, rng.choice(["", "bye", "ü" * 61])))
            self.seen.close_sent = code
            self._silent = True
        elif how == "violation":
            await self._violate()
        elif how == "flood":
            for _ in range(200):
                if self._silent:
                    return
                self._say(self._payload(2000))
                if rng.random() < 0.1:
                    await self._pause()
        elif how == "silence":
            await self._over.wait()
        else:
            if rng.random() < 0.3:
                self._send(frame(TEXT, b"a" * rng.choice([10, min(self.manners.largest, 200_000)]), fin=False))
            self._vanish({"finish": self._line.finish, "reset": self._line.reset, "leave": self._line.leave}[how])

    async def _violate(self) -> None:
        rng = self._rng
        kind = rng.choice([*VIOLATIONS, "too big", "too big in parts", "deflate"])
        if kind == "too big":
            head = frame(BINARY, bytes(1 << 16))[:14]
            data, code = head[:2] + (self.manners.largest + 1).to_bytes(8, "big") + head[10:], 1009
            if self.manners.largest < 1 << 16:
                data = frame(TEXT, b"a" * (self.manners.largest + 1))
        elif kind == "too big in parts":
            data, code = frame(TEXT, b"a" * self.manners.largest, fin=False) + frame(CONT, b"b"), 1009
        elif kind == "deflate":
            data, code = frame(TEXT, b"\xff\xff\xff\xff", rsv1=True), 1007 if self._deflates else 1002
        else:
            data, code = VIOLATIONS[kind]
        self._send(data)
        if not self._silent:
            self.seen.violated = code
        for _ in range(rng.choice([0, 0, 3])):
            await self._pause()
            self._send(_whole("behind"))
        self._silent = True


def _whole(payload: Payload) -> bytes:
    return frame(TEXT, payload.encode()) if isinstance(payload, str) else frame(BINARY, payload)


def _unmasked(data: bytes) -> bytes:
    return bytes([data[0], data[1] & 0x7F]) + data[6:]


VIOLATIONS: Final[dict[str, tuple[bytes, int]]] = {
    "reserved bit": (bytes([frame(TEXT, b"a")[0] | 0x20]) + frame(TEXT, b"a")[1:], 1002),
    "reserved opcode": (frame(0x3, b"a"), 1002),
    "reserved control": (frame(0xB, b"a"), 1002),
    "fragmented control": (frame(PING, b"a", fin=False), 1002),
    "long control": (frame(PING, bytes(126)), 1002),
    "unmasked": (_unmasked(frame(TEXT, b"a")), 1002),
    "stray continuation": (frame(CONT, b"a"), 1002),
    "interrupted": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    "long length": (b"\x81\xfe\x00\x01\x00\x00\x00\x00a", 1002),
    "bad text": (frame(TEXT, b"a\xff"), 1007),
    "bad text in parts": (frame(TEXT, "é".encode()[:1], fin=False) + frame(CONT, b"a", fin=False), 1007),
    "text cut short": (frame(TEXT, "é".encode()[:1]), 1007),
    "close of a byte": (frame(CLOSE, b"a"), 1002),
    "close code": (close_frame(1005), 1002),
    "close reason": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
}
