"""The measured peers: each one's name, its command, and its abilities."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

SERVERS = Path(__file__).parent / "servers"


class Feature(enum.Flag):
    ECHO = enum.auto()
    CHAT = enum.auto()
    ROOMS = enum.auto()
    DEFLATE = enum.auto()
    CLOSE = enum.auto()
    """Ends a connection when the client says Close."""
    LARGE = enum.auto()
    """Takes messages of more than a few kilobytes."""
    TYPED = enum.auto()
    """Answers a message of a declared type with one like it."""


USUAL = Feature.ECHO | Feature.CHAT | Feature.CLOSE | Feature.LARGE
FIELDS = '"text":"hi hi hi hi hi hi hi hi hi","number":12345,"name":"ann the great of the north"'
SAY = '{"type":"say",' + FIELDS + "}"
OUR_PROTOCOL = "antiphon.server:WebSocketProtocol"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    name: str
    label: str
    argv: tuple[str, ...]
    """`{bin}` is the benchmark environment's bin folder, `{port}` the port, `{build}` the folder of the C programs."""
    features: Feature = USUAL
    env: tuple[tuple[str, str], ...] = ()
    deflate_argv: tuple[str, ...] = ()
    """Arguments to add when the workload negotiates compression."""
    plain_argv: tuple[str, ...] = ()
    """Arguments to add when it does not."""
    message: str = SAY
    """The message to a typed echo."""
    redis: bool = False
    """Wants a redis-server; gets its URL as `BENCH_HUB`. That server's use is not counted."""


def _uvicorn(app: str, *options: str) -> tuple[str, ...]:
    return ("{bin}/uvicorn", app, "--port", "{port}", "--log-level", "critical", *options)


NO_DEFLATE = ("--ws-per-message-deflate", "false")

PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="fastapi",
            label="FastAPI on uvicorn",
            argv=_uvicorn("fastapi_app:app"),
            features=USUAL | Feature.DEFLATE,
            plain_argv=NO_DEFLATE,
        ),
        Peer(
            name="fastapi-wsproto",
            label="FastAPI on uvicorn, wsproto",
            argv=_uvicorn("fastapi_app:app", "--ws", "wsproto"),
            features=USUAL | Feature.DEFLATE,
            plain_argv=NO_DEFLATE,
        ),
        Peer(
            name="fastapi-on-antiphon",
            label="FastAPI on antiphon's protocol",
            argv=_uvicorn("fastapi_app:app", "--ws", OUR_PROTOCOL),
            features=USUAL | Feature.DEFLATE,
        ),
        Peer(
            name="antiphon",
            label="antiphon",
            argv=("{bin}/antiphon", "run", "antiphon_app:app", "--port", "{port}", "--log-level", "critical"),
            features=USUAL | Feature.DEFLATE,
        ),
        Peer(
            name="antiphon-pure",
            label="antiphon, pure Python",
            argv=("{bin}/antiphon", "run", "antiphon_app:app", "--port", "{port}", "--log-level", "critical"),
            features=USUAL | Feature.DEFLATE,
            env=(("ANTIPHON_PURE", "1"),),
        ),
        Peer(
            name="antiphon-hub",
            label="antiphon's hub",
            argv=("{bin}/antiphon", "run", "antiphon_hub_app:app", "--port", "{port}", "--log-level", "critical"),
            features=Feature.CHAT | Feature.ROOMS | Feature.CLOSE | Feature.DEFLATE,
        ),
        Peer(
            name="antiphon-hub-redis",
            label="antiphon's hub on Redis",
            argv=("{bin}/antiphon", "run", "antiphon_hub_app:app", "--port", "{port}", "--log-level", "critical"),
            features=Feature.CHAT | Feature.ROOMS | Feature.CLOSE | Feature.DEFLATE,
            redis=True,
        ),
        Peer(
            name="antiphon-hub-relay",
            label="antiphon's hub, 2 workers and their relay",
            argv=(
                *("{bin}/antiphon", "run", "antiphon_hub_app:app", "--port", "{port}", "--log-level", "critical"),
                *("--workers", "2"),
            ),
            features=Feature.CHAT | Feature.ROOMS | Feature.CLOSE | Feature.DEFLATE,
            env=(("BENCH_HUB", "relay://"),),
        ),
        Peer(
            name="granian",
            label="FastAPI on granian",
            argv=(
                *("{bin}/granian", "--interface", "asgi", "--port", "{port}", "--log-level", "critical"),
                *("--loop", "uvloop", "fastapi_app:app"),
            ),
        ),
        Peer(
            name="hypercorn",
            label="FastAPI on hypercorn",
            argv=("{bin}/hypercorn", "-b", "127.0.0.1:{port}", "-k", "uvloop", "fastapi_app:app"),
        ),
        Peer(
            name="litestar",
            label="Litestar on uvicorn",
            argv=_uvicorn("litestar_app:app"),
            features=Feature.ECHO | Feature.CLOSE | Feature.LARGE,
            plain_argv=NO_DEFLATE,
        ),
        Peer(
            name="aiohttp",
            label="aiohttp",
            argv=("{bin}/python", "aiohttp_app.py", "{port}"),
            features=USUAL | Feature.DEFLATE,
            deflate_argv=("deflate",),
        ),
        Peer(
            name="websockets",
            label="websockets",
            argv=("{bin}/python", "websockets_app.py", "{port}"),
            features=USUAL | Feature.DEFLATE,
            deflate_argv=("deflate",),
        ),
        Peer(name="picows", label="picows (callbacks)", argv=("{bin}/python", "picows_app.py", "{port}")),
        Peer(name="socketify", label="socketify (C++)", argv=("{bin}/python", "socketify_app.py", "{port}")),
        Peer(
            name="node",
            label="node ws",
            argv=("node", "node_app.js", "{port}"),
            features=USUAL | Feature.DEFLATE,
            deflate_argv=("deflate",),
        ),
        Peer(
            name="antiphon-channel",
            label="antiphon, a channel",
            argv=("{bin}/antiphon", "run", "typed_app:app", "--port", "{port}", "--log-level", "critical"),
            features=Feature.TYPED,
        ),
        Peer(
            name="antiphon-json",
            label="antiphon, receive_json and send_json",
            argv=("{bin}/antiphon", "run", "json_app:app", "--port", "{port}", "--log-level", "critical"),
            features=Feature.TYPED,
        ),
        Peer(
            name="fastapi-typed",
            label="FastAPI on uvicorn, validation by hand",
            argv=_uvicorn("fastapi_typed_app:app"),
            features=Feature.TYPED,
            plain_argv=NO_DEFLATE,
        ),
        Peer(
            name="litestar-listener",
            label="Litestar's listener with a DTO on uvicorn",
            argv=_uvicorn("litestar_typed_app:app"),
            features=Feature.TYPED,
            plain_argv=NO_DEFLATE,
        ),
        Peer(
            name="chanx",
            label="chanx on uvicorn",
            argv=_uvicorn("chanx_app:app"),
            features=Feature.TYPED,
            plain_argv=NO_DEFLATE,
            message='{"action":"say","payload":{' + FIELDS + "}}",
        ),
        Peer(
            name="floor",
            label="bare C epoll loop, no checks",
            argv=("{build}/floor", "{port}"),
            features=Feature.ECHO | Feature.CHAT,
        ),
    )
}
