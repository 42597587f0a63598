"""Cost of parsing one masked client frame and building its echo, in microseconds: native, pure, and the neighbours.

Run `python benchmarks/parser.py`; neighbours that are not installed are left out. Each figure is the best of several
rounds: the machine's noise only ever adds.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable

from antiphon.wire import Role, frames, parser

KEY = b"\x37\xfa\x21\x3d"
PAYLOADS: dict[str, str | bytes] = {
    "text 32 B": "x" * 32,
    "text 1 KiB": "x" * 1024,
    "text 1 KiB, not ASCII": "é€😀z" * 102,
    "binary 32 B": b"x" * 32,
    "text 64 KiB": "x" * 65536,
    "binary 64 KiB": b"x" * 65536,
}
MAX = 1 << 20

Echo = Callable[[bytes], object]


def pure() -> Echo:
    feed = parser.Parser(role=Role.SERVER, max_message_size=MAX).feed
    encode = frames.encode_message
    return lambda data: [encode(message) for message in feed(data)]  # type: ignore[arg-type]


def native() -> Echo:
    from antiphon.wire import _native

    feed = _native.Parser(role=Role.SERVER, max_message_size=MAX).feed
    encode = _native.encode_message
    return lambda data: [encode(message) for message in feed(data)]  # type: ignore[arg-type]


def websockets() -> Echo:
    from websockets.frames import Frame, Opcode
    from websockets.protocol import OPEN, Protocol, Side

    protocol = Protocol(Side.SERVER, state=OPEN, max_size=MAX)

    def echo(data: bytes) -> object:
        protocol.receive_data(data)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.TEXT:
                protocol.send_text(str(frame.data, "utf-8").encode())
            else:
                protocol.send_binary(frame.data)
        return protocol.data_to_send()

    return echo


def wsproto() -> Echo:
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage, TextMessage

    connection = Connection(ConnectionType.SERVER)

    def echo(data: bytes) -> object:
        connection.receive_data(data)
        out = b""
        for event in connection.events():
            if isinstance(event, TextMessage):
                out += connection.send(TextMessage(data=event.data))
            elif isinstance(event, BytesMessage):
                out += connection.send(BytesMessage(data=event.data))
        return out

    return echo


def best(echo: Echo, frame: bytes, rounds: int, number: int) -> float:
    return min(timeit.repeat(lambda: echo(frame), number=number, repeat=rounds)) / number * 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    options = arguments.parse_args()
    echoes: dict[str, Echo] = {}
    for name, make in (("native", native), ("pure", pure), ("websockets", websockets), ("wsproto", wsproto)):
        try:
            echoes[name] = make()
        except ImportError as error:
            print(f"without {name}: {error}")
    print(f"{'':24}" + "".join(f"{name:>12}" for name in echoes))
    for title, payload in PAYLOADS.items():
        opcode = frames.TEXT if isinstance(payload, str) else frames.BINARY
        frame = frames.encode_frame(opcode, payload, mask=KEY)
        number = 20000 if len(frame) < 2000 else 1000
        costs = [
            best(echo, frame, options.rounds, number if name != "wsproto" else number // 20)
            for name, echo in echoes.items()
        ]
        print(f"{title:24}" + "".join(f"{cost:12.3f}" for cost in costs))


if __name__ == "__main__":
    main()
