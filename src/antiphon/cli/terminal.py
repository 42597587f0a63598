"""A person's view of a connection, and their input. Knows nothing of sockets.

On a terminal: marks, colours, JSON laid out, and a line being typed survives incoming messages. In a pipe: on stdout
the messages alone, as they came, one line each, and everything else on stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from antiphon import status

from .prompt import Prompt

HEX_COLUMNS = 16
CHUNK = 64 << 10

CLOSE_NAMES = {
    int(name.split("_")[1]): " ".join(name.split("_")[2:]).lower() for name in vars(status) if name.startswith("WS_1")
}


def name_of_close(code: int) -> str:
    """The words for a close code (RFC 6455 §7.4)."""
    if code in CLOSE_NAMES:
        return CLOSE_NAMES[code]
    if 3000 <= code <= 3999:
        return "registered with IANA"
    return "the application's own" if 4000 <= code <= 4999 else "unknown"


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A line of the input that is not text."""

    number: int

    def __str__(self) -> str:
        return f"line {self.number} of the input is not UTF-8"


Line = str | Undecodable


class Terminal:
    """Shows messages and reads lines. `pretty` is whether JSON is laid out."""

    def __init__(self, *, pretty: bool | None) -> None:
        self.interactive: Any | bool = sys.stdin.isatty() and sys.stdout.isatty()
        self._on_screen = sys.stdout.isatty()
        dumb = os.environ.get("TERM") == "dumb"  # one that shows escape sequences instead of obeying them
        self._colour = self._on_screen and not dumb and not os.environ.get("NO_COLOR")
        self._prompt = Prompt("\n" if dumb else "\r\x1b[K")
        self._leave = "\n" if dumb else "\r\x1b[K\x1b[?2004l"  # bracketed paste is readline's, too
        self._pretty = self._on_screen if pretty is None else pretty
        self._settings = _settings() if self.interactive else None

    def received(self, message: str | bytes) -> None:
        """Show a message of the server."""
        lines = hex_dump(message) if isinstance(message, bytes) else self._text(message)
        mark = self._style("< ", "green") if self._on_screen else ""
        marked = "\n".join((mark if number == 0 else "  " if mark else "") + line for number, line in enumerate(lines))
        self._prompt.show(lambda: click.echo(marked))

    def note(self, text: str, *, colour: str = "bright_black") -> None:
        """Say something that is not a message."""
        shown = self._style("\n".join(map(visible, text.split("\n"))), colour)
        self._prompt.show(lambda: click.echo(shown, err=True))

    def over(self) -> None:
        """Nothing more is read: the prompt goes, and the terminal is left as it was found.

        The thread that reads may hang in readline for ever, which has taken echo and line mode from the terminal.
        """
        self._prompt.over()
        if self.interactive:
            click.echo(self._leave, nl=False)
        if self._settings is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._settings)

    def _style(self, text: str, colour: str) -> str:
        return click.style(text, fg=colour) if self._colour else text

    def _text(self, message: str) -> list[str]:
        if self._pretty and message.lstrip()[:1] in ("{", "["):
            try:
                laid_out = json.dumps(json.loads(message), indent=2, ensure_ascii=False)
            except ValueError:
                pass
            else:
                return (_coloured(laid_out) if self._colour else laid_out).splitlines()
        return [(visible(line) if self._on_screen else line) for line in message.split("\n")]

    def lines(self) -> asyncio.Queue[Line | None]:
        """The input, typed or piped, line by line. None at its end. Read in a thread that dies with the process."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Line | None] = asyncio.Queue()

        def give(line: Line | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(queue.put_nowait, line)

        threading.Thread(target=self._read, args=(give,), daemon=True).start()
        return queue

    def _read(self, give: Callable[[Line | None], None]) -> None:
        try:
            if self.interactive:
                while True:
                    give(self._prompt.read())
            for number, line in enumerate(_piped(sys.stdin.fileno()), 1):
                give(decoded := _decoded(line, number))
                if isinstance(decoded, Undecodable):
                    return
        except (EOFError, ValueError, OSError):
            pass
        finally:
            give(None)


def _settings() -> list[Any] | None:
    """The terminal's settings for `over` to restore. None on Windows."""
    try:
        import termios
    except ImportError:
        return None
    return termios.tcgetattr(sys.stdin)


def _piped(descriptor: int) -> Iterator[bytes]:
    """Lines without their ends. Not through `sys.stdin`: an interpreter that ends while a thread waits there aborts."""
    parts: list[bytes] = []
    while chunk := os.read(descriptor, CHUNK):
        *ended, last = chunk.split(b"\n")
        for line in ended:
            yield b"".join((*parts, line))
            parts.clear()
        parts.append(last)
    if rest := b"".join(parts):
        yield rest


def _decoded(line: bytes, number: int) -> Line:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        return Undecodable(number)


def visible(text: str) -> str:
    """Text that a terminal shows and does not obey: control characters as escapes."""
    return "".join(
        character if character == "\t" or unicodedata.category(character) != "Cc" else repr(character)[1:-1]
        for character in text
    )


def hex_dump(data: bytes) -> list[str]:
    """Bytes as offset, hexadecimal and ASCII, sixteen to a line."""
    lines = [f"binary, {len(data)} byte{'' if len(data) == 1 else 's'}"]
    for offset in range(0, len(data), HEX_COLUMNS):
        part = data[offset : offset + HEX_COLUMNS]
        digits = " ".join(f"{byte:02x}" for byte in part)
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{offset:08x}  {digits:<{HEX_COLUMNS * 3}} {text}")
    return lines


def _coloured(text: str) -> str:
    from rich.console import Console
    from rich.json import JSON

    console = Console(force_terminal=True, soft_wrap=True, width=10_000)
    with console.capture() as capture:
        console.print(JSON(text, indent=2), soft_wrap=True)
    return capture.get().rstrip("\n")
