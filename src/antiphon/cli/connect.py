"""`antiphon connect`: talk to a WebSocket server from the terminal."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import os
import signal
import sys
import time

import click

from antiphon.wire import Close, Ping, Pong

from .client import Address, BadAddress, Refused, TerminalClient, Unreachable
from .parameters import Seconds
from .problem import Problem, WrongUsage
from .terminal import Terminal, name_of_close

GOOD_ENDINGS = (1000, 1001, 1005)
ENDED_BADLY = 3
HEADERS_OF_INTEREST = ("www-authenticate", "location", "retry-after", "allow", "sec-websocket-version", "content-type")
HELP = """\
lines are sent as text; //text sends /text; CTRL+D closes
/ping [text]   /bytes 68 69   /close [code] [reason]"""


@click.command("connect", context_settings={"show_default": True})
@click.argument("url")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="Header to send (repeatable).")
@click.option("--subprotocol", "subprotocols", multiple=True, metavar="NAME", help="Subprotocol to offer (repeatable).")
@click.option("--token", metavar="TOKEN", help="Sent as Authorization: Bearer TOKEN.")
@click.option("--origin", metavar="ORIGIN", help="Sent as Origin, as a browser would.")
@click.option("--insecure", is_flag=True, help="Take any certificate (wss).")
@click.option("--json/--raw", "pretty", default=None, help="Lay JSON out, or not.  [default: on a terminal]")
@click.option("--no-compression", is_flag=True, help="Do not offer permessage-deflate.")
@click.option(
    "--wait",
    type=Seconds(endless=True),
    default=1.0,
    metavar="SECONDS",
    help="In a pipe: close when the input has ended and nothing came for so long; 'inf' never.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the handshake, pings and pongs.")
def command(
    url: str,
    headers: tuple[str, ...],
    subprotocols: tuple[str, ...],
    token: str | None,
    origin: str | None,
    insecure: bool,
    pretty: bool | None,
    no_compression: bool,
    wait: float,
    verbose: bool,
) -> None:
    """Connect to the WebSocket at URL: send lines, see what comes, and how it ended.

    \b
    antiphon connect ws://localhost:8000/ws
    antiphon connect wss://example.org/feed --token "$TOKEN" -H "X-Room: 7"
    echo '{"ask": "time"}' | antiphon connect localhost:8000/ws | jq .

    In a pipe each input line is one message, and stdout has the messages alone.
    Exit code: 0 a normal close, 1 no connection, 2 wrong usage, 3 any other ending.
    """
    try:
        address = Address.parse(url)
    except BadAddress as error:
        raise WrongUsage(str(error), "for example: antiphon connect ws://localhost:8000/ws") from None
    sent = headers_to_send(headers, address, token=token, origin=origin)
    session = _Session(Terminal(pretty=pretty), wait=wait, verbose=verbose)
    try:
        code = asyncio.run(
            session.run(
                address, headers=sent, subprotocols=subprotocols, insecure=insecure, compress=not no_compression
            )
        )
    except Unreachable as error:
        hints = ["--insecure takes any certificate"] if "certificate" in str(error) else []
        raise Problem(f"cannot connect: {error}", *hints) from None
    except Refused as error:
        raise refusal(error, address, verbose=verbose) from None
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def headers_to_send(
    given: tuple[str, ...], address: Address, *, token: str | None, origin: str | None
) -> list[tuple[str, str]]:
    """The headers that the options of a command ask for."""
    headers = []
    for text in given:
        name, separator, value = text.partition(":")
        if not separator or not name.strip():
            raise WrongUsage(f"--header {text!r} is not of the form NAME:VALUE")
        if not text.isascii() and any(ord(character) > 255 for character in text):
            raise WrongUsage(f"--header {text!r} has characters that HTTP headers cannot carry (beyond Latin-1)")
        headers.append((name.strip(), value.strip()))
    if token is not None:
        headers.append(("Authorization", f"Bearer {token}"))
    elif address.credentials is not None:
        headers.append(("Authorization", "Basic " + base64.b64encode(address.credentials.encode()).decode()))
    if origin is not None:
        headers.append(("Origin", origin))
    return headers


def refusal(error: Refused, address: Address, *, verbose: bool) -> Problem:
    """Why the server would not have it, as a command's end."""
    if not error.status:
        hints = [f"it said: {error.body[:80]!r}"] if error.body else []
        if not hints and not address.secure:
            hints = [f"if it expects TLS: wss://{address.authority}{address.target}"]
        return Problem(f"the handshake failed: {error}", *hints)
    shown = [f"{name}: {value}" for name, value in error.headers if verbose or name in HEADERS_OF_INTEREST]
    body = error.body.strip().splitlines()[:20]
    return Problem(f"the server refused the connection: {error}", *shown, *([""] if body else []), *body)


class _Session:
    """One connection between a terminal and a server."""

    def __init__(self, terminal: Terminal, *, wait: float, verbose: bool) -> None:
        self._terminal = terminal
        self._wait = wait
        self._verbose = verbose
        self._heard = asyncio.Event()
        self._pinged: dict[bytes, float] = {}  # payload of a ping that was asked for -> when it was sent

    async def run(
        self,
        address: Address,
        *,
        headers: list[tuple[str, str]],
        subprotocols: tuple[str, ...],
        insecure: bool,
        compress: bool,
    ) -> int:
        client = await TerminalClient.open(
            address, headers=headers, subprotocols=subprotocols, insecure=insecure, compress=compress
        )
        stop = asyncio.Event()
        with contextlib.suppress(NotImplementedError):  # Windows: CTRL+C raises KeyboardInterrupt instead
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        self._greet(address, client, offered=bool(subprotocols))
        writing = asyncio.create_task(self._write(client))
        stopping = asyncio.create_task(self._close_when(stop, client))
        try:
            await self._read(client)
        finally:
            writing.cancel()
            stopping.cancel()
            self._terminal.over()
        code = self._farewell(client)
        if writing.done() and not writing.cancelled():
            writing.result()  # its problem is ours
        return code

    def _greet(self, address: Address, client: TerminalClient, *, offered: bool) -> None:
        details = f", subprotocol {client.subprotocol}" if client.subprotocol else ""
        if offered and not details:
            details = ", which takes none of the subprotocols"
        self._terminal.note(f"connected to {address}{details}")
        if self._verbose:
            for name, value in client.response.headers:
                self._terminal.note(f"  {name.decode('latin-1')}: {value.decode('latin-1')}")
        if self._terminal.interactive:
            self._terminal.note(HELP)

    def _farewell(self, client: TerminalClient) -> int:
        code = client.close_code
        good = client.closed_by_us or code in GOOD_ENDINGS
        reason = f": {client.close_reason}" if client.close_reason else ""
        by = " by us" if client.closed_by_us else ""
        self._terminal.note(
            f"closed{by} with {code} ({name_of_close(code)}){reason}", colour="bright_black" if good else "yellow"
        )
        return 0 if good else ENDED_BADLY

    async def _read(self, client: TerminalClient) -> None:
        async for event in client.events():
            if isinstance(event, str | bytes):
                self._heard.set()
                self._terminal.received(event)
            elif isinstance(event, Pong) and event.payload in self._pinged:
                took = time.monotonic() - self._pinged.pop(event.payload)
                self._terminal.note(f"pong after {took * 1000:.1f} ms")
            elif self._verbose and isinstance(event, Ping | Pong):
                self._terminal.note(f"{type(event).__name__.lower()} {event.payload.hex(' ')}".rstrip())
            elif self._verbose and isinstance(event, Close):
                self._terminal.note("close frame received")

    async def _write(self, client: TerminalClient) -> None:
        lines = self._terminal.lines()
        try:
            while isinstance(line := await lines.get(), str):
                if self._terminal.interactive:
                    await self._typed(client, line)
                else:
                    await client.send(line)
            if not self._terminal.interactive:
                await self._silence()
            if line is not None:
                raise Problem(f"{line}; the lines before it were sent")
        finally:
            await client.close()

    async def _silence(self) -> None:
        """Wait until nothing has come for `wait` seconds."""
        while True:
            self._heard.clear()
            try:
                async with asyncio.timeout(None if math.isinf(self._wait) else self._wait):
                    await self._heard.wait()
            except TimeoutError:
                return

    async def _typed(self, client: TerminalClient, line: str) -> None:
        try:
            if line.startswith("/") and not line.startswith("//"):
                await self._command(client, *line[1:].split(" ", 1))
            elif line:
                await client.send(line[1:] if line.startswith("//") else line)
        except UnicodeEncodeError:
            self._terminal.note("that is not UTF-8, and was not sent", colour="red")
        except ValueError as error:
            self._terminal.note(str(error), colour="red")

    async def _command(self, client: TerminalClient, name: str, rest: str = "") -> None:
        if name == "ping":
            payload = rest.encode()
            self._pinged[payload] = time.monotonic()
            await client.ping(payload)
        elif name == "bytes":
            await client.send(_bytes(rest))
        elif name == "close":
            code, _, reason = rest.partition(" ")
            await client.close(_code(code), reason)
        else:
            self._terminal.note(HELP)

    async def _close_when(self, stop: asyncio.Event, client: TerminalClient) -> None:
        await stop.wait()
        await client.close()


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{text!r} is not hexadecimal; for example: /bytes 68 69 0a") from None


def _code(text: str) -> int:
    if text and not text.isdecimal():
        raise ValueError(f"{text!r} is not a close code; for example: /close 4000 enough")
    return int(text or 1000)
