"""TLS and Unix sockets: other transports, same behaviour."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import websockets

from antiphon.server import HTTPProtocol, ServerConfig, WebSocketProtocol
from tests.patience import PATIENCE

from .raw import PING, echo, frame, serving, until


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


def tls(certificate: tuple[Path, Path]) -> tuple[dict[str, Any], ssl.SSLContext]:
    key, cert = certificate
    return {"ssl_keyfile": str(key), "ssl_certfile": str(cert)}, ssl.create_default_context(cafile=str(cert))


@pytest.mark.parametrize("http", ["auto", HTTPProtocol])
async def test_messages_of_all_sizes_pass_through_tls(certificate: tuple[Path, Path], http: Any) -> None:
    schemes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        schemes.append(scope["scheme"])
        await echo(scope, receive, send)

    options, context = tls(certificate)
    async with serving(app, lifespan="off", http=http, **options) as served:
        url = f"wss://127.0.0.1:{served.port}/"
        async with websockets.connect(url, ssl=context, max_size=None) as client:
            for size in (0, 10, 70_000, 3_000_000):
                await client.send(b"x" * size)
                assert await client.recv() == b"x" * size
        assert client.close_code == 1000
    assert schemes == ["wss"]


async def test_a_violation_over_tls_is_told_before_the_end(certificate: tuple[Path, Path]) -> None:
    options, context = tls(certificate)
    async with serving(echo, ServerConfig(close_timeout=PATIENCE), **options) as served:
        async with websockets.connect(f"wss://127.0.0.1:{served.port}/", ssl=context) as client:
            client.transport.write(frame(PING, b"x", fin=False))
            with pytest.raises(websockets.ConnectionClosedError) as info:
                await client.recv()
            assert info.value.rcvd is not None
            assert info.value.rcvd.code == 1002


async def test_a_stalled_peer_over_tls_is_aborted(certificate: tuple[Path, Path]) -> None:
    raised: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 65536})
        except OSError:
            raised.append(True)

    options, context = tls(certificate)
    async with serving(app, ServerConfig(send_timeout=0.4), lifespan="off", **options) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
        from .raw import request

        writer.write(request())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: raised)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_unix_socket_has_a_path_for_a_server_and_no_client(tmp_path: Path) -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    path = tmp_path / "s"
    config = uvicorn.Config(app, uds=str(path), ws=WebSocketProtocol, lifespan="off", log_config=None)
    from tests.serving import _Server

    server = _Server(config)
    running = asyncio.create_task(server.serve())
    await server.ready.wait()
    async with websockets.unix_connect(str(path), "ws://localhost/x") as client:
        await client.send("x")
        assert await client.recv() == "x"
    server.should_exit = True
    await running
    assert scopes[0]["server"] == (str(path), None)
    assert scopes[0]["client"] is None
