"""One collection for many processes: `pytest -p tests.parallel --processes 6`.

pytest-xdist starts interpreters, of which each imports and collects all tests again: six times ten seconds before the
first one runs. Here pytest collects once and forks, at a moment when there is no thread, no event loop and no fixture.

The tests of a file go to one process in their order, as long as no process is idle: that one takes the second half of
what the process with most has left. Tests that drive a browser stay in a few processes, each of which starts one. The
parent hands out one test at a time and plays what comes back to pytest's hooks: reports, `-x` and `--durations` are
what they always are.

    process → parent    "next"; a hook of pytest, with its arguments; "end", or "broken" with a traceback
    parent → process    the number of a test, or None: there are no more

A process that dies fails the test it was in, by name, and another one takes its place.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Final, NoReturn

import pytest

BROWSERS: Final = 3
"""Processes that run the tests with a browser."""

BROWSER: Final = "running"
"""The fixture that starts one."""

TOGETHER: Final = "tests/test_"
"""Paths of tests that go to one process, as those of a file do: most of them read all sources, which takes a while."""

LONGEST: Final = (
    "tests/browser/test_documentation.py",
    TOGETHER,
    "tests/conformance",
    "tests/clients/test_typing.py",
    "tests/howto",
    "tests/upstream",
    "tests/storms",
    "tests/gate/test_crowds.py",
    "tests/server/test_stop.py",
    "tests/server/test_http.py",
    "tests/clients",
    "tests/browser",
)
"""Paths of tests that begin first: what builds something for others, what takes a minute by itself, and what waits most
of its time. Others work meanwhile, as long as there are others."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", type=int, metavar="N", help="run the tests in N processes, after one collection")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.processes and not config.option.collectonly:
        config.pluginmanager.register(Parent(config.option.processes))


class Queue:
    """The tests that nobody has taken yet, file by file."""

    def __init__(self, items: Sequence[pytest.Item]) -> None:
        files: dict[str, list[int]] = {}
        for number, item in enumerate(items):
            path = item.nodeid.partition("::")[0]
            files.setdefault(TOGETHER if path.startswith(TOGETHER) else path, []).append(number)
        self._files = {file: files[file] for file in sorted(files, key=self._rank)}
        self._with_browser = {
            file
            for file, numbers in files.items()
            if any(BROWSER in getattr(items[number], "fixturenames", ()) for number in numbers)
        }

    @staticmethod
    def _rank(file: str) -> int:
        return next((rank for rank, path in enumerate(LONGEST) if file.startswith(path)), len(LONGEST))

    def take(self, *, browser: bool) -> Iterable[int]:
        """The tests of the next file; those with a browser first, for who may."""
        allowed = [file for file in self._files if browser or file not in self._with_browser]
        if not allowed:
            return ()
        return self._files.pop(min(allowed, key=lambda file: browser and file not in self._with_browser))


@dataclass(eq=False, slots=True)
class Worker:
    """A process as its parent sees it."""

    pid: int
    connection: Connection
    browser: bool
    left: deque[int] = field(default_factory=deque)
    """Tests that are its own and were not handed out."""
    given: deque[int] = field(default_factory=deque)
    """Tests that it has: the one it is in, and the next."""


class Parent:
    """Hands out tests, and tells pytest what became of them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: dict[Connection, Worker] = {}
        self._numbers = itertools.count()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            return None  # pytest's own loop says so
        self._session = session
        self._queue = Queue(session.items)
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        try:
            for number in range(min(self._count, len(session.items))):
                self._fork(browser=number < BROWSERS)
            while self._workers:
                for connection in wait(list(self._workers)):
                    assert isinstance(connection, Connection)
                    self._hear(self._workers[connection])
        finally:
            for worker in self._workers.values():
                os.kill(worker.pid, signal.SIGTERM)
            for worker in tuple(self._workers.values()):
                self._forget(worker)
        for why in (session.shouldfail, session.shouldstop):
            if why:
                raise (session.Failed if why is session.shouldfail else session.Interrupted)(why)
        return True

    def _fork(self, *, browser: bool) -> Worker:
        number = next(self._numbers)
        ours, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for connection in self._workers:
                connection.close()
            _run(self._session, number, theirs)
        theirs.close()
        worker = self._workers[ours] = Worker(pid, ours, browser)
        return worker

    def _hear(self, worker: Worker) -> None:
        hook, arguments = _received(worker.connection)
        if hook == "died":
            self._died(worker)
        elif hook == "next":
            self._hand_out(worker)
        elif hook == "end":
            self._forget(worker)
        elif hook == "broken":
            raise RuntimeError(f"a process of the tests broke:\n{arguments}")
        else:
            config = self._session.config
            if hook == "pytest_runtest_logfinish":
                worker.given.popleft()
            elif hook == "pytest_runtest_logreport":
                arguments["report"] = config.hook.pytest_report_from_serializable(
                    config=config, data=arguments["report"]
                )
            call = getattr(config.hook, hook)
            if call.is_historic():
                call.call_historic(kwargs=arguments)
            else:
                call(**arguments)

    def _hand_out(self, worker: Worker) -> None:
        if self._session.shouldfail or self._session.shouldstop:
            worker.left.clear()
        elif not worker.left:
            worker.left.extend(self._queue.take(browser=worker.browser) or self._half_of_the_most(worker))
        number = worker.left.popleft() if worker.left else None
        if number is not None:
            worker.given.append(number)
        with contextlib.suppress(BrokenPipeError):  # it died after it asked: that is heard next
            worker.connection.send(number)

    def _half_of_the_most(self, worker: Worker) -> list[int]:
        other = max((one for one in self._workers.values() if one.browser <= worker.browser), key=lambda o: len(o.left))
        return [other.left.pop() for _ in range((len(other.left) + 1) // 2)][::-1]

    def _died(self, worker: Worker) -> None:
        status = self._forget(worker)
        session = self._session
        if worker.given:
            item = session.items[worker.given.popleft()]
            text = f"the process of this test ended with {status}"
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")
            session.config.hook.pytest_runtest_logreport(report=report)
        self._fork(browser=worker.browser).left.extend((*worker.given, *worker.left))

    def _forget(self, worker: Worker) -> int:
        """Returns how it ended, as `os.waitstatus_to_exitcode` does."""
        del self._workers[worker.connection]
        worker.connection.close()
        return os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])


def _received(connection: Connection) -> tuple[str, Any]:
    try:
        message: tuple[str, Any] = connection.recv()
    except (EOFError, ConnectionResetError):
        return "died", None
    return message


# In a process of its own.


def _run(session: pytest.Session, number: int, parent: Connection) -> NoReturn:
    """Run tests until there are no more."""
    code = 1
    try:
        _become_a_worker(session.config, number, parent)
        item = _next(session, parent)
        while item is not None and not (session.shouldfail or session.shouldstop):
            following = _next(session, parent)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            item = following
        session._setupstate.teardown_exact(None)
        atexit._run_exitfuncs()
        parent.send(("end", None))
        code = 0
    except KeyboardInterrupt:
        pass  # the parent has heard it too
    except BaseException:
        parent.send(("broken", traceback.format_exc()))
    finally:
        os._exit(code)


def _next(session: pytest.Session, parent: Connection) -> pytest.Item | None:
    parent.send(("next", None))
    number = parent.recv()
    return None if number is None else session.items[number]


def _become_a_worker(config: pytest.Config, number: int, parent: Connection) -> None:
    """Share no output, no folder and no word with the others."""
    manager = config.pluginmanager
    capture: Any = manager.getplugin("capturemanager")
    capture.read_global_capture()
    capture.stop_global_capturing()
    capture.start_global_capturing()
    reporter: Any = manager.getplugin("terminalreporter")
    reporter._tw._file = open(os.devnull, "w")  # noqa: SIM115
    folders: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    folders._basetemp = folders.getbasetemp() / f"p{number}"
    folders._basetemp.mkdir(0o700)
    manager.register(Reporter(config, parent))


class Reporter:
    """Passes on what pytest says of a test."""

    def __init__(self, config: pytest.Config, parent: Connection) -> None:
        self._config = config
        self._parent = parent

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        self._parent.send(("pytest_runtest_logstart", {"nodeid": nodeid, "location": location}))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._parent.send(("pytest_runtest_logreport", {"report": data}))

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        self._parent.send(("pytest_runtest_logfinish", {"nodeid": nodeid, "location": location}))

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: Any
    ) -> None:
        told = warnings.WarningMessage(
            str(warning_message.message), UserWarning, warning_message.filename, warning_message.lineno
        )
        arguments = {"warning_message": told, "when": when, "nodeid": nodeid, "location": location}
        self._parent.send(("pytest_warning_recorded", arguments))
