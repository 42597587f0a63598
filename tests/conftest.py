"""Rules for all tests: none may fail because the machine is busy with something else, or wait for nothing."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest
import websockets
from hypothesis import HealthCheck, settings

from tests import forkserver
from tests.patience import PATIENCE

pytest_plugins = ["tests.browser.fixtures"]  # one browser for all tests of a process, in any folder

settings.register_profile("patient", settings(deadline=None, suppress_health_check=[HealthCheck.too_slow]))
settings.load_profile("patient")

# The client that most tests connect with gives a server 10 seconds to answer, and it may need them only to start.
defaults = websockets.connect.__init__.__kwdefaults__
assert defaults is not None
defaults["open_timeout"] = PATIENCE


# Ten thousand collected tests are half a million objects that live to the end: the garbage collector leaves them alone,
# while they come and whenever a test asks for it. So are the syntax trees of all sources, once the tests that read them
# are over: a collection that walks them takes half a second.


def pytest_configure() -> None:
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("processes", None):
        forkserver.start()
    gc.collect()
    gc.freeze()
    gc.enable()


LOGGERS: Final = [logging.getLogger(name) for name in ("antiphon", "uvicorn", "uvicorn.error", "uvicorn.access")]


def _settings(logger: logging.Logger) -> tuple[int, list[logging.Handler], bool, bool]:
    return logger.level, [*logger.handlers], logger.propagate, logger.disabled


LOGS: Final = [_settings(logger) for logger in LOGGERS]


def _reads_sources(item: pytest.Item | None) -> bool:
    return item is not None and item.path.parent == Path(__file__).parent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Any test may be the next in this process: it must not meet settings of logs, or a program, of the last one."""
    yield
    if _reads_sources(item) and not _reads_sources(nextitem):
        gc.collect()
        gc.freeze()
    for logger, settings_before in zip(LOGGERS, LOGS, strict=True):
        if _settings(logger) != settings_before:
            level, logger.handlers[:], logger.propagate, logger.disabled = settings_before
            logger.setLevel(level)
    assert sys.modules.pop("main", None) is None, "the test leaves the module `main` behind, for all that import theirs"
