"""Rules for all tests: none may fail because the machine is busy with something else, or wait for nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator

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
# while they come and whenever a test asks for it.


def pytest_configure() -> None:
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("processes", None):
        forkserver.start()
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Many tests write a program `main.py`, and the next one must not import theirs."""
    yield
    assert sys.modules.pop("main", None) is None, "the test leaves the module `main` behind, for all that import theirs"
