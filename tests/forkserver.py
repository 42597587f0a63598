"""Python processes that run at once: forked from one that has imported their common modules.

`create_subprocess_exec` has the signature of asyncio's, and `popen` is for tests without a loop. They run a Python
program (`python -m module`, `python script.py`) as a fork of the fork server of this test process. Everything else is
executed. A server spends more on its imports than most tests on all the rest: half a second, some five hundred times in
a run.

A fork is like an executed process, from its arguments to its end, except that its modules are there already and that
its parent is the fork server. A test of these, or of how an interpreter starts, calls asyncio's. With
`ANTIPHON_TEST_EXEC=1` everything is executed: `make test-lowest` does that.

Run as a script, this module is the fork server. It ends with the process that started it:

    request, a packet      {"argv", "command", "cwd", "env", "passed"}, and descriptors: status, 0, 1, 2, those passed
    answers, on status     the process id, and its return code when it has ended
"""

from __future__ import annotations

import asyncio
import asyncio.streams
import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import io
import json
import os
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

PRELOADED: Final = (
    "antiphon",
    "antiphon.cli.run",
    "antiphon.hub",
    "antiphon.hub.backends.relay.backend",
    "antiphon.hub.backends.relay.process",
    "antiphon.testing.hub_sinks",
    "asyncio",
    "fastapi",
    "httptools",
    "pydantic",
    "starlette.applications",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.supervisors",
    "uvloop",
)
NAMES: Final = ("App", "APIRouter", "Hub", "WebSocket")
"""Of the package, which imports each when it is first asked for."""

LONGEST: Final = 1 << 17
STATUS: Final = struct.Struct("q")
FLAGS: Final[tuple[list[str], ...]] = (["-W", "error"], [])
"""Options of the interpreter that a fork server can have."""

SETTINGS: Final = ("COVERAGE_", "GLIBC_", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "TZ")
"""Variables that are read while a process starts: one with values other than ours is executed."""

UNBUFFERED: Final = "PYTHONUNBUFFERED"
PURE: Final = "ANTIPHON_PURE"


# The test's end.


class Process:
    """asyncio's `Process`, for a child of the fork server."""

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.returncode: int | None = None
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(status, self._end, status)

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:
        out, err, _ = await asyncio.gather(_read(self.stdout), _read(self.stderr), self._write(input))
        await self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        with contextlib.suppress(ProcessLookupError):  # it has ended, and we have not heard it yet
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def _write(self, data: bytes | None) -> None:
        if self.stdin is None:
            return
        with contextlib.suppress(ConnectionError):
            self.stdin.write(data or b"")
            await self.stdin.drain()
        self.stdin.close()

    def _end(self, status: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(status)
        with status:
            (self.returncode,) = STATUS.unpack(status.recv(STATUS.size))
        if self.stdin is not None:
            self.stdin.close()
        if not self._ended.done():
            self._ended.set_result(self.returncode)


class _Output(asyncio.StreamReaderProtocol):
    """asyncio's, which leaves its pipe open on uvloop when it has ended."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


AnyProcess: TypeAlias = Process | asyncio.subprocess.Process


async def create_subprocess_exec(
    *command: Any,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    limit: int = 1 << 16,
) -> AnyProcess:
    """As asyncio's. A Python program starts at once."""
    words = [os.fspath(word) for word in command]
    environment = dict(os.environ if env is None else env)
    flags = _fit(words, environment)
    if flags is None:
        return await asyncio.create_subprocess_exec(
            *words, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env, pass_fds=pass_fds, limit=limit
        )
    ours: dict[int, int] = {}
    ends = _ask_for_a_fork(words, flags, environment, cwd, (stdin, stdout, stderr), pass_fds, ours)
    ends.setblocking(False)
    (pid,) = STATUS.unpack(await asyncio.get_running_loop().sock_recv(ends, STATUS.size))
    process = Process(pid, ends)
    await _connect(process, ours, limit)
    return process


class Forked:
    """`subprocess.Popen`, for a child of the fork server that has a pipe for its input."""

    def __init__(self, status: socket.socket, stdin: int) -> None:
        self.stdin = open(stdin, "wb", 0)  # noqa: SIM115 - whoever ends the process closes it
        self.returncode: int | None = None
        self._status = status
        self.pid = self._told()

    def poll(self) -> int | None:
        with contextlib.suppress(TimeoutError):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutError."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise TimeoutError
            with self._status:
                self.returncode = self._told()
        return self.returncode

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _told(self) -> int:
        (number,) = STATUS.unpack(self._status.recv(STATUS.size))
        return int(number)


def popen(command: Sequence[str], env: Mapping[str, str]) -> Forked | None:
    """None: it cannot be forked."""
    flags = _fit(command, env)
    if flags is None:
        return None
    ours: dict[int, int] = {}
    status = _ask_for_a_fork(command, flags, env, None, (subprocess.PIPE, None, None), (), ours)
    return Forked(status, ours[0])


def _fit(words: Sequence[str], environment: Mapping[str, str]) -> list[str] | None:
    """The interpreter's options in a command. None where it is to be executed."""
    if _settings(environment) != _settings(os.environ) or os.environ.get("ANTIPHON_TEST_EXEC"):
        return None
    return _flags(words)


def _ask_for_a_fork(
    words: Sequence[str],
    flags: Sequence[str],
    environment: Mapping[str, str],
    cwd: str | Path | None,
    streams: Sequence[int | None],
    pass_fds: Sequence[int],
    ours: dict[int, int],
) -> socket.socket:
    """Returns where the process id comes, and at the end its return code. Our ends of its pipes go into `ours`."""
    server = _server(tuple(flags), environment.get(PURE, ""))
    request = {
        "argv": list(words[1 + len(flags) :]),
        "command": list(words),
        "cwd": str(cwd or Path.cwd()),
        "env": dict(environment),
        "passed": list(pass_fds),
    }
    with contextlib.ExitStack() as theirs:
        descriptors: list[int] = []
        for number, asked in enumerate(streams):
            descriptors.append(_descriptor(theirs, ours, number, asked, descriptors))
        ends, status = socket.socketpair()
        theirs.enter_context(status)
        socket.send_fds(server, [json.dumps(request).encode()], [status.fileno(), *descriptors, *pass_fds])
    return ends


def _flags(words: Sequence[str]) -> list[str] | None:
    """The interpreter's options in a command. None where it cannot be forked."""
    if words[0] != sys.executable:
        return None
    for flags in FLAGS:
        program = words[1 + len(flags) : 2 + len(flags)]
        if words[1 : 1 + len(flags)] == flags and program and (program == ["-m"] or not program[0].startswith("-")):
            return flags
    return None


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(SETTINGS) and name != UNBUFFERED}


def _descriptor(
    theirs: contextlib.ExitStack, ours: dict[int, int], number: int, asked: int | None, before: list[int]
) -> int:
    """The process's descriptor of this number; our end of a pipe goes into `ours`."""
    if asked is None:
        return number
    if asked == asyncio.subprocess.STDOUT:
        return before[1]
    if asked == asyncio.subprocess.DEVNULL:
        null = os.open(os.devnull, os.O_RDWR)
        theirs.callback(os.close, null)
        return null
    if asked != asyncio.subprocess.PIPE:
        return asked
    reads, writes = os.pipe()
    its, ours[number] = (reads, writes) if number == 0 else (writes, reads)
    theirs.callback(os.close, its)
    return its


async def _connect(process: Process, ours: dict[int, int], limit: int) -> None:
    loop = asyncio.get_running_loop()
    for number, descriptor in ours.items():
        file = open(descriptor, "wb" if number == 0 else "rb", 0)  # noqa: ASYNC230, SIM115 - a pipe, which its transport closes
        if number == 0:
            transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, file)
            process.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
            continue
        reader = asyncio.StreamReader(limit)
        await loop.connect_read_pipe(functools.partial(_Output, reader), file)
        setattr(process, {1: "stdout", 2: "stderr"}[number], reader)


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


def start() -> None:
    """Start the fork servers that most tests use, for this process and for those that are forked from it."""
    for flags in FLAGS:
        _server(tuple(flags), os.environ.get(PURE, ""))


@functools.cache
def _server(flags: tuple[str, ...], pure: str) -> socket.socket:
    """The fork server of this process with these options and this twin. It lives as long as we do, and serves our forks
    too, because a request is one packet."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, *flags, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            env=os.environ | {PURE: pure},
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# The server's end.


class Job:
    """The properties of a future fork."""

    def __init__(self, request: dict[str, Any], descriptors: Sequence[int]) -> None:
        self._argv: list[str] = request["argv"]
        self._command: list[str] = request["command"]
        self._cwd: str = request["cwd"]
        self._env: dict[str, str] = request["env"]
        self._passed: list[int] = request["passed"]
        self._descriptors = descriptors

    def run(self) -> None:
        """Become the process and run its program. Returns, or raises, as the program ends."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run below `nohup`
        self._take_descriptors()
        os.chdir(self._cwd)
        os.environ.clear()
        os.environ.update(self._env)
        unbuffered = bool(self._env.get(UNBUFFERED))
        sys.stdin = sys.__stdin__ = _text(0, "r", buffered=True)  # type: ignore[misc]
        sys.stdout = sys.__stdout__ = _text(1, "w", buffered=not unbuffered)  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = _text(2, "w", buffered=not unbuffered)  # type: ignore[misc]
        sys.orig_argv = self._command
        importlib.invalidate_caches()
        sys.modules["__main__"] = types.ModuleType("__main__")
        if self._argv[0] == "-m":
            module, *rest = self._argv[1:]
            sys.path[0] = self._cwd
            sys.argv = ["-m", *rest]
            runpy._run_module_as_main(module)  # type: ignore[attr-defined]
        else:
            script = self._argv[0]
            sys.path[0] = str(Path(script).resolve().parent)
            sys.argv = list(self._argv)
            main = sys.modules["__main__"].__dict__
            main |= {"__file__": script, "__builtins__": __builtins__}
            exec(compile(Path(script).read_bytes(), script, "exec"), main)

    def _take_descriptors(self) -> None:
        numbers = [0, 1, 2, *self._passed]
        # first out of the way of each other
        copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 512) for descriptor in self._descriptors[1:]]
        for number, copy in zip(numbers, copies, strict=True):
            os.dup2(copy, number)
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in numbers:
                with contextlib.suppress(OSError):
                    os.close(int(name))


def _text(number: int, mode: str, *, buffered: bool) -> io.TextIOWrapper:
    binary: Any = open(number, mode + "b", -1 if buffered else 0, closefd=False)  # noqa: SIM115
    errors = "backslashreplace" if number == 2 else "strict"
    terminal = binary.isatty() or (number == 2 and buffered)
    return io.TextIOWrapper(binary, errors=errors, line_buffering=terminal, write_through=not buffered)


def serve(requests: socket.socket) -> Job | None:
    """Fork for each request. Returns a job in the fork, and None when nobody asks any more."""
    running = selectors.DefaultSelector()
    running.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in running.select():
            if key.fileobj is not requests:
                _tell_end(running, key)
                continue
            data, descriptors, _, _ = socket.recv_fds(requests, LONGEST, 64)
            if not data:
                return None
            request = json.loads(data)
            pid = os.fork()
            if pid == 0:
                for other in running.get_map().values():
                    if other.data:
                        other.data[1].detach()  # its descriptor is closed with all others
                requests.detach()
                running.close()
                return Job(request, descriptors)
            status = socket.socket(fileno=descriptors[0])
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            status.sendall(STATUS.pack(pid))
            running.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))


def _tell_end(running: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    running.unregister(key.fileobj)
    os.close(key.fd)
    pid, status = key.data
    _, ended = os.waitpid(pid, 0)
    with status, contextlib.suppress(OSError):  # the test has ended
        status.sendall(STATUS.pack(os.waitstatus_to_exitcode(ended)))


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end us
    for name in PRELOADED:
        importlib.import_module(name)
    for name in NAMES:
        getattr(sys.modules["antiphon"], name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        job = serve(requests)
    if job is not None:
        job.run()


if __name__ == "__main__":
    main()
