"""The processes that serve: their start, and the supervisor's reaction to the end of one.

uvicorn's supervisors, whose processes are forks where there is a fork server. README.md shows which process watches
which.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

import uvicorn
from uvicorn.server import HANDLED_SIGNALS
from uvicorn.supervisors import ChangeReload, Multiprocess
from uvicorn.supervisors.multiprocess import Process

from .forks import Fork, ForkServer, fork_server
from .problem import Problem

STARTUP_FAILURE: Final = 3

MODULES: Final = (
    "antiphon.app",
    "antiphon.hub.backends.relay",
    "concurrent.futures.thread",
    "httptools",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.loops.uvloop",
)
"""A worker's imports besides the command's."""

logger: Final = logging.getLogger("antiphon.cli")


@contextlib.contextmanager
def forked(wanted: bool) -> Iterator[ForkServer | None]:
    """The source of this command's workers. Call it at the beginning of a command: forks share the state of that
    moment."""
    forks = fork_server(MODULES) if wanted else None
    try:
        yield forks
    finally:
        if forks is not None:
            forks.close()


class WorkerProcess(Process):
    """One of several processes, as its supervisor sees it."""

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # a fork may have ended that we have not heard of yet
            super().terminate()


class Workers(Multiprocess):
    """Several processes on one port. One that ends is replaced. One that could not start ends all."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], forks: ForkServer | None) -> None:
        super().__init__(config, sockets)
        self._forks = forks

    def init_processes(self) -> None:
        try:
            while len(self.processes) < self.processes_num:
                self.processes.append(self._started())
        except OSError as error:
            self.terminate_all()
            self.join_all()
            raise Problem(f"a worker cannot be started: {error}") from None

    def keep_subprocess_alive(self) -> None:
        if self._forks is not None:
            self._forks.lives()
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if worker.is_alive(timeout=self.config.timeout_worker_healthcheck):
                continue
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:  # another one would fail, too
                logger.error("Worker %d could not start: the server stops", worker.pid)
                self.should_exit.set()
                return
            logger.warning("Worker %d ended with %d: another takes its place", worker.pid, worker.exitcode)
            self._replace(place)

    def restart_all(self) -> None:
        for place, old in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            new = self._started_or_none()
            if new is None:
                return
            if not new.wait_until_ready(self.config.timeout_worker_healthcheck, self.should_exit):
                new.kill()
                new.join()
                if not self.should_exit.is_set():
                    logger.error("Worker %d does not serve: the workers of before stay", new.pid)
                return
            old.terminate()
            old.join()
            self.processes[place] = new

    def handle_ttin(self) -> None:
        worker = self._started_or_none()
        if worker is not None:
            self.processes.append(worker)
            self.processes_num += 1
            logger.info("Received SIGTTIN: %d workers from now on", self.processes_num)

    def _replace(self, place: int) -> None:
        """Where that fails, the dead one stays in its place, and is found there again."""
        worker = self._started_or_none()
        if worker is not None:
            self.processes[place] = worker

    def _started_or_none(self) -> WorkerProcess | None:
        try:
            return self._started()
        except OSError as error:
            logger.error("A worker cannot be started: %s", error)
            return None

    def _started(self) -> WorkerProcess:
        worker = WorkerProcess(self.config, self.sockets)
        fork = None
        if self._forks is not None:
            health = worker.child_conn.fileno()
            work = partial(_serve, self.config)
            fork = self._forks.fork(work, [health, *(listening.fileno() for listening in self.sockets)])
        if fork is None:
            worker.start()
        else:
            worker.process = fork  # type: ignore[assignment]  # has all that is asked of uvicorn's
        worker.child_conn.close()  # the worker has a copy of its own: with that the pipe ends, and nobody waits for it
        return worker


def _serve(config: uvicorn.Config, descriptors: Sequence[int], gone: Callable[[], object]) -> None:
    number, *listening = descriptors
    config.configure_logging()
    server = uvicorn.Server(config)
    health: Connection[Any, Any] = Connection(number)
    os.register_at_fork(after_in_child=health.close)  # else the supervisor would wait for an answer of who is dead
    threading.Thread(target=_tell_health, args=(health, server), daemon=True).start()
    end_after(gone)
    # Until uvicorn listens to signals, which is before it loads the application, Ctrl-C is the supervisor's alone: it
    # ends us by SIGTERM, and nothing is left in the middle of an exception.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.run([socket.socket(fileno=one) for one in listening])
    signal.signal(signal.SIGINT, before)


def _tell_health(supervisor: Connection[Any, Any], server: uvicorn.Server) -> None:
    with contextlib.suppress(EOFError, OSError):  # it asks no more
        while True:
            supervisor.recv()
            supervisor.send(server.started)


def end_after(gone: Callable[[], object]) -> None:
    """End this process in order when `gone` returns: an orphan would keep the port, with a hub without its relay."""

    def wait() -> None:
        gone()
        logger.error("The supervising process is gone: this worker stops")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


class Reloader(ChangeReload):  # type: ignore[valid-type, misc]  # a class, chosen by what is installed
    """One process that is started again when a source file changes."""

    process: Any
    """uvicorn's, or a fork, which has all that is asked of it."""

    def __init__(self, server: uvicorn.Server, sockets: list[socket.socket], forks: ForkServer | None) -> None:
        super().__init__(server.config, target=server.run, sockets=sockets)
        self._server = server
        self._forks = forks

    def startup(self) -> None:
        fork = self._fork()
        if fork is None:
            super().startup()
            return
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.signal_handler)
        logger.info("Watching the source with %s", self.reloader_name)
        self.process = fork

    def restart(self) -> None:
        if self._forks is None:
            super().restart()
            return
        self.process.terminate()
        self.process.join()
        fork = self._fork()
        if fork is None:
            super().restart()  # which finds that the process has ended
        else:
            self.process = fork

    def _fork(self) -> Fork | None:
        if self._forks is None:
            return None
        return self._forks.fork(partial(_reload, self._server), [listening.fileno() for listening in self.sockets])


def _reload(server: uvicorn.Server, descriptors: Sequence[int], gone: Callable[[], object]) -> None:
    server.config.configure_logging()
    end_after(gone)
    server.run([socket.socket(fileno=one) for one in descriptors])
