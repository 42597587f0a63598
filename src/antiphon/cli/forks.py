"""Processes that start at once: forked from one that has imported their modules, and nothing of the application.

Knows nothing of servers. `workers` gives forks their work, and README.md shows which process watches which.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import pickle
import select
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from . import process

Work: TypeAlias = Callable[[Sequence[int], Callable[[], object]], object]
"""The work of a fork: it gets descriptors of its own, and a function that returns when its supervisor is gone."""

PATIENCE: Final = 30.0
"""Seconds that the fork server may take to fork on a busy machine."""

TOLD: Final = 10.0
"""Seconds that it may take to tell that a fork has ended."""

UNKNOWN: Final = 255
"""Exit code of a fork whose fork server was killed before it could tell, or is stopped and does not tell."""

_SUPERVISORS: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
DEFERRED: Final = frozenset(number for number in signal.Signals if number.name in _SUPERVISORS)
"""Signals to the process group are for the supervisor and the forks: the fork server ends when they have."""

READ_AT_START: Final = ("ANTIPHON_PURE", "COVERAGE_", "GLIBC_", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "TZ")
"""Beginnings of variables that a process reads while it starts: with new ones it has to start."""

logger: Final = logging.getLogger("antiphon.cli")

_NUMBER: Final = struct.Struct("q")
_ASKED: Final = b"fork"
_MOST_DESCRIPTORS: Final = 128


class Fork:
    """A process that the fork server has forked: the supervisor's end, with `multiprocessing.Process`'s names."""

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self._status = status
        self._code: int | None = None

    @property
    def exitcode(self) -> int | None:
        """As of `Popen.returncode`. None while it runs."""
        self._hear(socket.MSG_DONTWAIT)
        return self._code

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self) -> None:
        """Until it has ended. Not until a fork server tells that is stopped (SIGSTOP)."""
        if self.is_alive() and not _has_ended(self.pid, self._status):
            self._code = UNKNOWN
            self._status.close()
        self._hear(0)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):  # it has ended, and we have not heard it yet
                os.kill(self.pid, number)

    def _hear(self, flags: int) -> None:
        """The fork server tells the code. Without it, the end of the connection is the end of the process."""
        if self._code is not None:
            return
        try:
            told = self._status.recv(_NUMBER.size, flags)
        except BlockingIOError:
            return
        except ConnectionError:
            told = b""
        if told:
            (self._code,) = _NUMBER.unpack(told)
        else:  # process 1 inherits the forks of a fork server that was killed, and has to wait for them
            self._code = _code_of_child(self.pid, 0)
        self._status.close()


def _has_ended(pid: int, status: socket.socket) -> bool:
    """Wait for the end of a process. Whether `status` has its code then, or ends."""
    waiting = select.poll()
    waiting.register(status, select.POLLIN)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        pass  # it has ended just now
    except OSError:  # an old system: `status` alone tells
        waiting.poll()
    else:
        try:
            waiting.register(process, select.POLLIN)
            waiting.poll()
            waiting.unregister(process)
        finally:
            os.close(process)
    return bool(waiting.poll(TOLD * 1000))


def _code_of_child(pid: int, options: int) -> int | None:
    """None: it runs. UNKNOWN: it is no child of ours, or its code is lost (SIGCHLD is ignored)."""
    try:
        ended, status = os.waitpid(pid, options)
    except ChildProcessError:
        return UNKNOWN
    return os.waitstatus_to_exitcode(status) if ended else None


class ForkServer:
    """The supervisor's end of the process that forks. It ends with the supervisor, when its forks have ended."""

    def __init__(self, pid: int, requests: socket.socket) -> None:
        self._pid = pid
        self._requests = requests
        self._settings = _settings()
        self._files = dict(_loaded_files())
        self._lives = True

    def fork(self, work: Work, descriptors: Sequence[int]) -> Fork | None:
        """A process that does `work` (picklable) in the supervisor's surroundings. None: it has to be started afresh.

        Raises OSError where the system has no room for another process.
        """
        if not self.lives() or self._is_outdated():
            return None
        request = _Request(work)
        data = pickle.dumps(request)
        status, its = socket.socketpair()
        try:
            status.settimeout(PATIENCE)
            with its:
                socket.send_fds(self._requests, [_ASKED], [its.fileno(), *descriptors])
            told = status.recv(_NUMBER.size)
        except OSError:  # a timeout is one
            told = b""
        if not told:
            status.close()
            self._give_up()
            return None
        (pid,) = _NUMBER.unpack(told)
        if pid < 0:
            status.close()
            raise OSError(-pid, os.strerror(-pid))
        status.settimeout(None)
        with contextlib.suppress(ConnectionError):  # it has ended: callers will notice
            status.sendall(_NUMBER.pack(len(data)) + data)
        return Fork(pid, status)

    def lives(self) -> bool:
        """Asked often, it notices soon that forks are no longer available."""
        if not self._lives:
            return False
        code = _code_of_child(self._pid, os.WNOHANG)
        if code is not None:
            self._end()
            logger.warning("The process that workers are forked from ended with %d: new ones start more slowly", code)
        return self._lives

    def close(self) -> None:
        """Fork no more. The forks that there are go on."""
        if self._lives:
            self._end()

    def _end(self) -> None:
        self._lives = False
        self._requests.close()

    def _give_up(self) -> None:
        """It does not answer: stopped, or just killed."""
        if self._lives:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            deadline = time.monotonic() + PATIENCE
            while self.lives() and time.monotonic() < deadline:
                time.sleep(0.01)
            self.close()

    def _is_outdated(self) -> bool:
        """A fork has the modules of the start. One of them in another version, or a setting, is a reason to start."""
        changed = next((path for path, known in self._files.items() if _state(path) != known), None)
        if changed is not None:
            logger.info("%s has changed: workers start afresh from now on", changed)
        elif _settings() != self._settings:
            logger.debug("the environment has settings of the interpreter: workers start afresh")
        else:
            return False
        self.close()
        return True


def fork_server(modules: Sequence[str]) -> ForkServer | None:
    """Fork a fork server off this process, with these modules. None: this process is not fit, or the system is not.

    Does not return in the fork server, nor in its forks: they leave as a program that ends, by SystemExit.
    """
    if not _is_fit():
        return None
    with process.importing():  # and shared pages stay shared: a collection does not touch them, and copies none
        for name in modules:
            with contextlib.suppress(ImportError):  # a worker reports a missing module that it needs
                importlib.import_module(name)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, or it is closed
            stream.flush()
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        its.close()
        return ForkServer(pid, ours)
    ours.close()
    work = _Server(its, mask).serve()
    if work is not None:
        work()
    raise SystemExit(0)


def _is_fit() -> bool:
    """Whether nothing but our command has run here, in one thread.

    Only Linux: Windows cannot fork, and macOS's own libraries start threads and do not bear it.
    """
    if sys.platform != "linux":
        return False
    try:
        return process.is_the_commands() and len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _loaded_files() -> Iterator[tuple[str, tuple[int, ...] | None]]:
    for module in tuple(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            yield path, _state(path)


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(READ_AT_START)}


@dataclass(slots=True)
class _Request:
    """The state that a fork takes over from its present supervisor."""

    work: Work
    argv: list[str] = field(default_factory=lambda: list(sys.argv))
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: str = field(default_factory=os.getcwd)
    path: list[str] = field(default_factory=lambda: list(sys.path))

    def take_over(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        sys.argv[:] = self.argv
        sys.path[:] = self.path
        importlib.invalidate_caches()


# In the fork server, and in its forks.


class _Server:
    """Forks when it is asked, and waits for its forks. Owns no thread, and no file but its sockets."""

    def __init__(self, requests: socket.socket, mask: set[int | signal.Signals]) -> None:
        """`mask`: the signals that a fork is to block. Here those that are `DEFERRED` are blocked already."""
        self._requests = requests
        self._mask = mask
        self._forks: dict[int, socket.socket] = {}
        """Where to tell how each ended."""
        self._woken, self._wakes = socket.socketpair()
        self._woken.setblocking(False)
        self._wakes.setblocking(False)
        self._child_handler = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes.fileno())
        _close_inherited({0, 1, 2, *(one.fileno() for one in (requests, self._woken, self._wakes))})

    def serve(self) -> Callable[[], object] | None:
        """In a fork: its work. None: the last supervisor is gone, and the last fork has ended."""
        with self._woken, self._wakes, selectors.DefaultSelector() as waiting:
            waiting.register(self._requests, selectors.EVENT_READ)
            waiting.register(self._woken, selectors.EVENT_READ)
            while self._requests.fileno() >= 0 or self._forks:
                for key, _ in waiting.select():
                    if key.fileobj is self._woken:
                        self._tell_ends()
                        continue
                    work = self._answer(waiting)
                    if work is not None:
                        return work
        return None

    def _answer(self, waiting: selectors.BaseSelector) -> Callable[[], object] | None:
        asked, descriptors, _, _ = socket.recv_fds(
            self._requests, len(_ASKED), _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not asked:
            waiting.unregister(self._requests)
            self._requests.close()
            return None
        status = socket.socket(fileno=descriptors[0])
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        if pid == 0:
            self._become_a_fork()
            return lambda: _work(status, descriptors[1:], self._mask)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        with contextlib.suppress(OSError):  # the supervisor is gone
            status.sendall(_NUMBER.pack(pid))
        if pid > 0:
            self._forks[pid] = status
        else:
            status.close()
        return None

    def _become_a_fork(self) -> None:
        """Nothing of the fork server is left but that it blocks signals."""
        signal.set_wakeup_fd(-1)
        if self._child_handler is not None:
            signal.signal(signal.SIGCHLD, self._child_handler)
        for mine in (self._requests, *self._forks.values()):
            mine.close()

    def _tell_ends(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(1024):
                pass
        while self._forks:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._forks.pop(pid) as supervisor, contextlib.suppress(OSError):
                supervisor.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _close_inherited(kept: set[int]) -> None:
    """Close the descriptors that an executed process would inherit: no object here knows of them."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        with contextlib.suppress(OSError):  # the listing's own is closed already
            if number not in kept and os.get_inheritable(number):
                os.close(number)


def _work(status: socket.socket, descriptors: Sequence[int], mask: set[int | signal.Signals]) -> None:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # a signal that came meanwhile comes now
        (length,) = _NUMBER.unpack(_exactly(status, _NUMBER.size))
        request: _Request = pickle.loads(_exactly(status, length))
        request.take_over()
        os.register_at_fork(after_in_child=status.close)  # else it would not end with this process
        request.work(descriptors, partial(os.read, status.fileno(), 1))
    except (KeyboardInterrupt, EOFError):
        pass  # Ctrl-C is for all of us; and a supervisor that is gone has no work
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None
    finally:
        status.detach()  # open until the very end: a thread may wait at it


def _exactly(source: socket.socket, count: int) -> bytes:
    data = source.recv(count, socket.MSG_WAITALL)
    if len(data) < count:
        raise EOFError
    return data
