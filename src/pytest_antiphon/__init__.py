"""antiphon's pytest plugin: the fixtures `app`, `client` and `server` (docs/testing.md).

Imports nothing but pytest until a test asks for a fixture. It is a package beside `antiphon` because pytest imports
every plugin at every start, and to import any module of `antiphon` is to import all of it.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from antiphon.server import ServerConfig
    from antiphon.testclient import TestClient
    from antiphon.testing import Server
    from antiphon.types import ASGIApp

LOOP_SCOPES: Final = ("function", "class", "module", "package", "session")
"""pytest-asyncio's: how long one event loop serves tests."""

NO_APP: Final = (
    "antiphon's fixtures need your application: define a fixture `app` that returns it, in conftest.py for instance\n\n"
    "    @pytest.fixture\n    def app():\n        return main.app"
)
NOT_ASYNC: Final = (
    "`server` serves in the event loop of the test, so the test has to be an `async def`; a plain test takes `client`, "
    "and one in virtual time opens `async with Server(app)` itself"
)
NO_LOOP: Final = (
    "`server` needs somebody who runs async tests: install pytest-asyncio, or mark the test with pytest.mark.anyio"
)
TWO_LOOPS: Final = (
    "pytest-asyncio in auto mode runs this test in one event loop and anyio its fixtures in another: "
    "set asyncio_mode = strict, or take the anyio mark away"
)
NOT_ON_TRIO: Final = (
    "antiphon serves on asyncio, and anyio runs this test on {name}: "
    'define a fixture `anyio_backend` that returns "asyncio"'
)


@pytest.fixture
def antiphon_client(app: ASGIApp) -> Generator[TestClient]:
    """`antiphon.testclient.TestClient` for `app`. The app's lifespan runs around the test."""
    from antiphon.testclient import TestClient

    with TestClient(app) as client:
        yield client


@pytest.fixture
def antiphon_server_config() -> ServerConfig | None:
    """The limits of `server`; override it to return another `ServerConfig`."""
    return None


@pytest.fixture
def antiphon_server(request: pytest.FixtureRequest) -> Server:
    """`antiphon.testing.Server` for `app`, in the test's event loop. The app's lifespan runs around the test."""
    server: Server = request.getfixturevalue(_server_for(request))
    return server


async def _serve(app: ASGIApp, antiphon_server_config: ServerConfig | None) -> AsyncGenerator[Server]:
    from antiphon.testing import Server

    async with Server(app, config=antiphon_server_config) as server:
        yield server


def _server_for(request: pytest.FixtureRequest) -> str:
    """The fixture that serves in the very loop in which the test will run."""
    test = getattr(request, "function", None)
    test = getattr(getattr(test, "hypothesis", None), "inner_test", test)
    if not inspect.iscoroutinefunction(test):
        pytest.fail(NOT_ASYNC, pytrace=False)
    config = request.config
    if "anyio_backend" in request.fixturenames:
        if _takes_every_test(config):
            pytest.fail(TWO_LOOPS, pytrace=False)
        name = request.getfixturevalue("anyio_backend_name")
        if name != "asyncio":
            pytest.fail(NOT_ON_TRIO.format(name=name), pytrace=False)
        return "_antiphon_server_anyio"
    if not config.pluginmanager.has_plugin("asyncio"):
        pytest.fail(NO_LOOP, pytrace=False)
    marker = request.node.get_closest_marker("asyncio")
    scope = marker.kwargs.get("loop_scope") if marker is not None else None
    return f"_antiphon_server_{scope or _default_scope(config)}"


def _takes_every_test(config: pytest.Config) -> bool:
    """pytest-asyncio is in auto mode."""
    if not config.pluginmanager.has_plugin("asyncio"):
        return False
    mode: object = config.getoption("asyncio_mode", None) or config.getini("asyncio_mode")
    return mode == "auto"


def _default_scope(config: pytest.Config) -> str:
    try:
        return str(config.getini("asyncio_default_test_loop_scope") or "function")
    except ValueError:  # pytest-asyncio before 0.26
        return "function"


def pytest_configure(config: pytest.Config) -> None:
    """Offer the short names that no other plugin uses, and servers in the loops that others run."""
    offered: dict[str, Any] = {"_antiphon_server_anyio": pytest.fixture(name="_antiphon_server_anyio")(_serve)}
    if config.pluginmanager.has_plugin("asyncio"):
        import pytest_asyncio

        for scope in LOOP_SCOPES:
            name = f"_antiphon_server_{scope}"
            offered[name] = pytest_asyncio.fixture(_copy(_serve), name=name, loop_scope=scope)
    short = _short_names()
    for name in short.keys() - _taken(config, short):
        offered[name] = short[name]
    # pytest looks for fixtures in a module or an object. A module of our own can get a chosen set of them.
    holder = types.ModuleType("pytest_antiphon.offered")
    vars(holder).update(offered)
    config.pluginmanager.register(holder, "antiphon-fixtures")


def _short_names() -> dict[str, Any]:
    @pytest.fixture
    def app() -> ASGIApp:
        """Your application: override it."""
        pytest.fail(NO_APP, pytrace=False)

    @pytest.fixture
    def client(antiphon_client: TestClient) -> TestClient:
        """`antiphon.testclient.TestClient` for `app`. The app's lifespan runs around the test."""
        return antiphon_client

    @pytest.fixture
    def server(antiphon_server: Server) -> Server:
        """`antiphon.testing.Server` for `app`, in the test's event loop. The app's lifespan runs around the test."""
        return antiphon_server

    return {"app": app, "client": client, "server": server}


def _taken(config: pytest.Config, names: Iterable[str]) -> set[str]:
    """Names of fixtures of other plugins, which would win or lose by chance: pytest-django has a `client`, too.

    A conftest.py is no plugin here: its fixtures override ours where it holds.
    """
    kind = type(antiphon_client)
    plugins = [plugin for name, plugin in config.pluginmanager.list_name_plugin() if not name.endswith("conftest.py")]
    return {name for name in names if any(isinstance(getattr(plugin, name, None), kind) for plugin in plugins)}


def _copy(function: Callable[..., Any]) -> Callable[..., Any]:
    """pytest-asyncio writes the loop's scope into the function it is given."""
    return types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
