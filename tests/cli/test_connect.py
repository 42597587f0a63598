"""`antiphon connect` shows a conversation with any server, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import socket
import ssl
import sys
import termios
from collections.abc import AsyncGenerator, Sequence
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from antiphon.cli.terminal import hex_dump, name_of_close, visible
from tests.commands import ANTIPHON, Finished, antiphon
from tests.patience import PATIENCE

from .certificates import self_signed

FLOOD = 3000


async def answer(connection: ServerConnection) -> None:
    """Echoes. Some words mean something."""
    async for message in connection:
        match message:
            case "headers":
                assert connection.request is not None
                await connection.send(json.dumps(dict(connection.request.headers.raw_items())))
            case "subprotocol":
                await connection.send(str(connection.subprotocol))
            case "bytes":
                await connection.send(b"\x00\x01hello, bytes!\xff")
            case "ping":
                await (await connection.ping(b"are you there"))
                await connection.send("it was")
            case "go away":
                await connection.close(4001, "as you wish")
            case "flood":
                for number in range(FLOOD):
                    await connection.send(f"{number} of many")
            case "vanish":
                connection.transport.abort()
            case _:
                await connection.send(message)


def refuse(connection: ServerConnection, request: Request) -> Response | None:
    if request.path.startswith("/private"):
        headers = Headers({"WWW-Authenticate": "Bearer", "Content-Type": "text/plain", "Content-Length": "12"})
        return Response(401, "Unauthorized", headers, b"who are you?")
    if request.path == "/gone":
        return connection.respond(HTTPStatus.GONE, "")
    return None


@contextlib.asynccontextmanager
async def server(context: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    subprotocols = [Subprotocol("one"), Subprotocol("two")]
    async with serve(
        *(answer, "127.0.0.1", 0),
        subprotocols=subprotocols,
        select_subprotocol=lambda connection, offered: offered[-1] if offered and offered[-1] in subprotocols else None,
        process_request=refuse,
        ssl=context,
    ) as running:
        yield next(iter(running.sockets)).getsockname()[1]


async def conversation(address: str, *args: str, lines: str) -> Finished:
    """The answers to the lines. The server's "go away" ends it, so nobody has to guess how long its answers take."""
    return await antiphon("connect", address, *args, "--wait", "inf", stdin=f"{lines}go away\n")


async def test_lines_are_sent_and_stdout_has_the_messages_alone() -> None:
    said = "one\n\ngrüße\n"
    async with server() as port:
        finished = await antiphon("connect", f"ws://127.0.0.1:{port}/x", "--wait", "0.2", stdin=said, open_until=said)
    assert finished.stdout == "one\n\ngrüße\n"
    assert f"connected to ws://127.0.0.1:{port}/x" in finished.stderr
    assert "closed by us with 1000 (normal closure)" in finished.stderr
    assert finished.code == 0


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "http://127.0.0.1:{}/", "ws://localhost:{}/a b?q=ü"])
async def test_an_address_may_be_written_as_people_write_it(form: str) -> None:
    async with server() as port:
        finished = await conversation(form.format(port), lines="hello\n")
    assert finished.stdout == "hello\n"


async def test_a_server_that_takes_none_of_the_subprotocols_is_told() -> None:
    async with server() as port:
        finished = await antiphon("connect", f"127.0.0.1:{port}", "--subprotocol", "three", "--wait", "0")
    assert "which takes none of the subprotocols" in finished.stderr
    assert finished.code == 0


async def test_headers_token_origin_and_subprotocols_are_sent() -> None:
    async with server() as port:
        finished = await conversation(
            *(f"127.0.0.1:{port}", "--token", "abc", "-H", "X-Room: 7", "--origin", "http://me"),
            *("--subprotocol", "one", "--subprotocol", "two"),
            lines="headers\nsubprotocol\n",
        )
    headers, subprotocol = finished.stdout.splitlines()
    sent = {name.lower(): value for name, value in json.loads(headers).items()}
    assert (sent["authorization"], sent["x-room"], sent["origin"]) == ("Bearer abc", "7", "http://me")
    assert subprotocol == "two"
    assert "subprotocol two" in finished.stderr


async def test_a_user_in_the_address_becomes_basic_credentials() -> None:
    async with server() as port:
        finished = await conversation(f"ws://ada:love@127.0.0.1:{port}", lines="headers\n")
    assert "Basic YWRhOmxvdmU=" in finished.stdout


async def test_json_is_laid_out_when_asked_and_left_alone_in_a_pipe() -> None:
    async with server() as port:
        address = f"127.0.0.1:{port}"
        plain = await conversation(address, lines='{"a":[1]}\n')
        pretty = await conversation(address, "--json", lines='{"a":[1]}\n')
    assert plain.stdout == '{"a":[1]}\n'
    assert json.loads(pretty.stdout) == {"a": [1]}
    assert len(pretty.stdout.splitlines()) > 1


async def test_bytes_are_shown_as_a_hex_dump() -> None:
    async with server() as port:
        finished = await conversation(f"127.0.0.1:{port}", lines="bytes\n")
    assert "binary, 16 bytes" in finished.stdout
    assert "00 01 68 65 6c 6c 6f" in finished.stdout
    assert "..hello, bytes!." in finished.stdout


async def test_pings_are_answered_and_shown_on_request() -> None:
    async with server() as port:
        finished = await conversation(f"127.0.0.1:{port}", "-v", lines="ping\n")
    assert finished.stdout == "it was\n"
    assert f"ping {b'are you there'.hex(' ')}" in finished.stderr
    assert "sec-websocket-accept" in finished.stderr


@pytest.mark.parametrize(
    ("word", "told"),
    [("go away", "closed with 4001 (the application's own): as you wish"), ("vanish", "closed with 1006")],
)
async def test_the_end_is_told_with_code_name_and_reason(word: str, told: str) -> None:
    async with server() as port:
        finished = await antiphon("connect", f"127.0.0.1:{port}", "--wait", "inf", stdin=f"{word}\n")
    assert told in finished.stderr
    assert finished.code == 3


async def test_the_servers_close_ends_the_command_while_the_input_is_still_open() -> None:
    async with server() as port:
        process = await asyncio.create_subprocess_exec(
            *(*ANTIPHON, "connect", f"127.0.0.1:{port}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"go away\n")
        async with asyncio.timeout(PATIENCE):
            told = await process.stderr.read()
            assert await process.wait() == 3
        process.stdin.close()
    assert b"closed with 4001" in told
    assert b"Traceback" not in told
    assert b"Fatal" not in told


async def test_an_interrupt_closes_politely() -> None:
    async with server() as port:
        process = await asyncio.create_subprocess_exec(
            *(*ANTIPHON, "connect", f"127.0.0.1:{port}"),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            told = await process.stderr.readline()
            process.send_signal(signal.SIGINT)
            told += await process.stderr.read()
            assert await process.wait() == 0
        process.stdin.close()
    assert b"closed by us with 1000" in told


async def test_a_refused_handshake_shows_status_headers_and_body() -> None:
    async with server() as port:
        finished = await antiphon("connect", f"127.0.0.1:{port}/private")
        gone = await antiphon("connect", f"127.0.0.1:{port}/gone")
    assert finished.code == gone.code == 1
    assert "the server refused the connection: 401 Unauthorized" in finished.stderr
    assert "www-authenticate: Bearer" in finished.stderr
    assert "who are you?" in finished.stderr
    assert "410 Gone" in gone.stderr


async def test_a_server_that_speaks_something_else_is_told() -> None:
    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(mumble, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        finished = await antiphon("connect", f"127.0.0.1:{port}")
        secure = await antiphon("connect", f"wss://127.0.0.1:{port}")
    assert "did not answer with HTTP/1.1" in finished.stderr
    assert "220 mail.example.org" in finished.stderr
    assert "cannot connect" in secure.stderr
    assert finished.code == secure.code == 1


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://example.org", "starts with ftp://"),
        ("ws://", "names no host"),
        ("ws://a:b:c/", "ws://a:b:c/"),
        ("ws://example.org/#room", "has a fragment (#room)"),
        ("ws://[::1", "Invalid IPv6 URL"),
        ("localhost:0", "nothing can listen on port 0"),
        ("ws://no.such.name.invalid/", "the name no.such.name.invalid is not known"),
    ],
)
async def test_an_address_that_cannot_be_is_explained(url: str, told: str) -> None:
    finished = await antiphon("connect", url)
    assert told in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.code == (1 if "not known" in told else 2)


async def test_a_port_nobody_listens_on_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        finished = await antiphon("connect", f"127.0.0.1:{port}")
    assert finished.stderr == f"error: cannot connect: nothing listens on 127.0.0.1 port {port}\n"


@pytest.mark.parametrize("header", ["X-Room", ": 7", "Upgrade: h2c", "X-Room: 7\r\nX-Evil: 1", "X: ☃"])
async def test_a_header_that_cannot_be_sent_is_refused(header: str) -> None:
    async with server() as port:
        finished = await antiphon("connect", f"127.0.0.1:{port}", "-H", header)
    assert finished.code == 2
    assert "Traceback" not in finished.stderr
    assert "codec" not in finished.stderr


async def test_waiting_takes_a_number_of_seconds_or_for_ever() -> None:
    for wait in ("nan", "-1", "soon"):
        finished = await antiphon("connect", "127.0.0.1:1", "--wait", wait)
        assert finished.code == 2
        assert "Invalid value for '--wait'" in finished.stderr


async def with_input(port: int, *piped: bytes) -> tuple[int | None, bytes, bytes]:
    """Run `antiphon connect` with bytes as its input, each behind an answer to the one before it, or with none at all:
    its standard input closed."""
    command = f'exec "{sys.executable}" -W error -m antiphon connect 127.0.0.1:{port} --wait 0.3'
    process = await asyncio.create_subprocess_shell(
        command + ("" if piped else " <&-"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    async with asyncio.timeout(PATIENCE):
        assert process.stdin is not None
        assert process.stdout is not None
        heard = b""
        for line in piped:
            process.stdin.write(line)
            if line is not piped[-1]:
                heard += await process.stdout.readline()
        stdout, stderr = await process.communicate(b"")
    assert b"Traceback" not in stderr
    return process.returncode, heard + stdout, stderr


async def test_a_line_that_is_not_text_ends_it_with_its_number() -> None:
    async with server() as port:
        code, stdout, stderr = await with_input(port, b"one\r\n", b"tw\xff\nthree\n")
    assert code == 1
    assert stdout == b"one\n"
    assert b"line 2 of the input is not UTF-8" in stderr


async def test_text_is_utf_8_whatever_the_locale_says() -> None:
    async with server() as port:
        assert (await with_input(port, "grüße\n".encode(), b""))[:2] == (0, "grüße\n".encode())


async def test_a_closed_standard_input_is_an_empty_one() -> None:
    async with server() as port:
        assert (await with_input(port))[:2] == (0, b"")


def context_with(key: Path, certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_certificate_is_checked_unless_told_otherwise(tmp_path: Path) -> None:
    async with server(context_with(*self_signed(tmp_path))) as port:
        address = f"wss://localhost:{port}"
        refused = await antiphon("connect", address)
        plain = await antiphon("connect", f"localhost:{port}")
        taken = await conversation(address, "--insecure", lines="hello\n")
    assert "no certificate to trust" in refused.stderr
    assert "--insecure" in refused.stderr
    assert f"if it expects TLS: wss://localhost:{port}/" in plain.stderr
    assert taken.stdout == "hello\n"


async def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    async with server() as port:
        process = await asyncio.create_subprocess_shell(
            f"yes line | {' '.join(ANTIPHON)} connect 127.0.0.1:{port} | head -n 3",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            stdout, stderr = await process.communicate()
    assert stdout == b"line\n" * 3
    assert b"Traceback" not in stderr


async def test_on_a_terminal_messages_are_marked_and_commands_understood() -> None:
    async with server() as port:
        await on_a_terminal(
            f"127.0.0.1:{port}",
            [
                ("> ", "hello"),
                ("< hello\r\n", '{"a": 1}'),
                ('< {\r\n    "a": 1\r\n  }', "//ping"),
                ("< /ping", "/bytes 68 69"),
                ("68 69", "/ping"),
                ("pong after", "/bytes zz"),
                ("'zz' is not hexadecimal", "/close now"),
                ("'now' is not a close code", "/nonsense"),
                ("lines are sent as text", "/close 1 one"),
                ("may not go on the wire", "go away"),
                ("closed with 4001", ""),
            ],
        )


async def test_a_line_can_be_typed_while_messages_pour_in() -> None:
    said = "x" * 2000
    rounds = [("flood", " 0 of many"), (said, f"< {said}")] * 6
    asked = [line for line, _ in rounds]
    async with server() as port:
        awaited = ["> ", *(words for _, words in rounds)]
        seen = await on_a_terminal(
            f"127.0.0.1:{port}", [*zip(awaited, [*asked, "go away"], strict=True), ("closed with", "")]
        )
    assert seen.count(f"< {said}\r\n") == 6
    shown = [int(number) for number in re.findall(r"< (\d+) of many\r\n", seen)]
    assert shown == [*range(FLOOD)] * 6


async def test_a_terminal_that_shows_escape_sequences_is_sent_none() -> None:
    async with server() as port:
        typed = [
            ("> ", '{"a": 1}'),
            ('"a": 1', "/nonsense"),
            ("lines are sent as text", "go away"),
            ("closed with", ""),
        ]
        seen = await on_a_terminal(f"127.0.0.1:{port}", typed, TERM="dumb", NO_COLOR="")
    assert "\x1b" not in seen


@pytest.mark.parametrize("ending", ["go away\n", "\x03", "\x04"], ids=["by the server", "CTRL+C", "CTRL+D"])
async def test_the_terminal_is_left_as_it_was_found(ending: str) -> None:
    main, side = pty.openpty()
    before = termios.tcgetattr(side)
    async with server() as port:
        process = await asyncio.create_subprocess_exec(
            *(*ANTIPHON, "connect", f"127.0.0.1:{port}"),
            stdin=side,
            stdout=side,
            stderr=side,
            preexec_fn=lambda: os.login_tty(os.dup(side)),
        )
        screen = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(screen), os.fdopen(os.dup(main), "rb", buffering=0)
        )
        async with asyncio.timeout(PATIENCE):
            await screen.readuntil(b"> ")
            os.write(main, ending.encode())
            await screen.readuntil(b"closed ")
            await process.wait()
    assert termios.tcgetattr(side) == before
    transport.close()
    os.close(main)
    os.close(side)


async def on_a_terminal(address: str, lines: Sequence[tuple[str, str]], **environment: str) -> str:
    """Run `antiphon connect` on a pseudo-terminal: wait for words on the screen, type a line, and so on to the end."""
    main, side = pty.openpty()
    env = {**os.environ, "NO_COLOR": "1", **environment}
    process = await asyncio.create_subprocess_exec(
        *ANTIPHON, "connect", address, stdin=side, stdout=side, stderr=side, env=env
    )
    os.close(side)
    screen = asyncio.StreamReader(limit=1 << 24)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(screen), os.fdopen(main, "rb+", buffering=0)
    )
    seen, words = b"", ""
    try:
        async with asyncio.timeout(PATIENCE):
            for words, line in lines:
                seen += await screen.readuntil(words.encode())
                for key in f"{line}\n":
                    os.write(main, key.encode())
                    await asyncio.sleep(0)
            await process.wait()
    except OSError as end:  # a terminal's, when its last program has ended
        rest = bytes(screen._buffer)  # type: ignore[attr-defined]
        raise AssertionError(f"it ended before {words!r}: {(seen + rest).decode()}") from end
    finally:
        transport.close()
    return seen.decode()


def test_control_characters_cannot_command_the_terminal() -> None:
    assert visible("a\x1b[2Jb\x07\x9b\tc") == "a\\x1b[2Jb\\x07\\x9b\tc"


def test_a_hex_dump_has_sixteen_bytes_a_line() -> None:
    lines = hex_dump(bytes(range(20)))
    assert lines[0] == "binary, 20 bytes"
    assert lines[2].startswith("00000010  10 11 12 13")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1000, "normal closure"),
        (1006, "abnormal closure"),
        (3001, "registered with IANA"),
        (4999, "the application's own"),
    ],
)
def test_close_codes_have_names(code: int, name: str) -> None:
    assert name_of_close(code) == name
