"""The prompt of a terminal: a line that is typed while other lines appear above it.

GNU readline edits the line, and is not for two threads: another one that asks for the line may read it half changed,
and the C library aborts the process. So the thread that reads also shows the other lines. readline calls it ten times a
second while it waits for a key (`PyOS_InputHook`).
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

PROMPT: Final = "> "

MOST: Final = 1000
"""Lines that wait to be shown. With so many, the thread that has another one waits, too."""


class Prompt:
    """Reads lines in one thread, and shows those of another. `lift` takes the line being typed off the screen."""

    def __init__(self, lift: str) -> None:
        self._lift = lift
        self._changed = threading.Condition()
        self._typing = False
        self._waiting: deque[Callable[[], None]] = deque()
        self._hook: Any = None
        """The function that readline calls. Kept to the end: a thread may be on its way into it."""
        self._hooked = False
        """readline calls it. Else nobody edits, and the other thread shows its lines itself."""

    def read(self) -> str:
        """A line. Raises EOFError, and then nobody types any more."""
        with self._changed:
            if not self._typing:
                self._typing = True
                self._install()
        try:
            return input(PROMPT)
        except BaseException:
            self.over()
            raise

    def show(self, line: Callable[[], None]) -> None:
        """Call `line`, which writes whole lines, with the one being typed out of the way. It may wait for that."""
        with self._changed:
            while self._hooked and len(self._waiting) >= MOST:
                self._changed.wait(1.0)
            if self._hooked:
                self._waiting.append(line)
            else:
                self._write(line)

    def over(self) -> None:
        """Nothing more is read. Lines that wait are shown."""
        with self._changed:
            if self._hooked:
                _input_hook().value = None
                self._hooked = False
            if self._waiting:
                sys.stdout.write(self._lift)
                sys.stdout.flush()
            self._typing = False
            while self._waiting:
                self._waiting.popleft()()

    def _install(self) -> None:
        with contextlib.suppress(ImportError, ValueError):  # no readline: then input() keeps no line
            import ctypes
            import readline  # noqa: F401  # line editing and history for input()

            self._hook = ctypes.CFUNCTYPE(ctypes.c_int)(self._on_wait)
            _input_hook().value = ctypes.cast(self._hook, ctypes.c_void_p).value
            self._hooked = True

    def _on_wait(self) -> int:
        """readline waits for a key, and its line stands still."""
        with self._changed:
            if self._hooked and self._waiting:
                with contextlib.suppress(OSError):  # the terminal is gone, and the thread will read that
                    self._show_waiting()
                self._changed.notify_all()
        return 0

    def _show_waiting(self) -> None:
        import readline

        sys.stdout.write(self._lift)
        sys.stdout.flush()
        while self._waiting:
            self._waiting.popleft()()
        sys.stdout.write(PROMPT + readline.get_line_buffer())
        sys.stdout.flush()

    def _write(self, line: Callable[[], None]) -> None:
        if self._typing:
            sys.stdout.write(self._lift)
            sys.stdout.flush()
        line()
        if self._typing:
            sys.stdout.write(PROMPT)
            sys.stdout.flush()


def _input_hook() -> Any:
    """CPython's pointer to a function that is called while a line is read. Raises ValueError where there is none."""
    import ctypes

    return ctypes.c_void_p.in_dll(ctypes.pythonapi, "PyOS_InputHook")
