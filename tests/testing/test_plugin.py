"""The pytest plugin as a stranger meets it: in projects of their own, run by a pytest of their own."""

from __future__ import annotations

import os
import sys

import pytest

import antiphon.testclient
import antiphon.testing  # noqa: F401
from tests.patience import PATIENCE

pytest_plugins = ["pytester"]

APP = """
from antiphon import App, Hub, TopicOptions, WebSocket

app = App(hub=Hub(topics={"*": TopicOptions(history=10)}))
lives = []

@app.websocket("/echo")
async def echo(websocket: WebSocket, hub: Hub) -> None:
    await websocket.accept()
    async with hub.join("room", websocket, history=10):
        async for text in websocket.iter_text():
            await hub.publish("room", {"type": "said", "text": text})
"""

CONFTEST = """
import pytest
import main

@pytest.fixture
def app():
    return main.app
"""

ASYNC_TESTS = """
import asyncio
import pytest
from antiphon.testing import Server

{mark}

@{fixture}
async def ada(server):
    async with server.connect("/echo") as peer:
        yield peer

@pytest.mark.parametrize("number", [1, 2])
async def test_a_message_comes_back_and_nothing_of_the_test_before(server, ada, number):
    assert isinstance(server, Server)
    async with asyncio.timeout(30):
        async with server.connect("/echo") as bob:
            await ada.receive_nothing(0.01)
            await bob.send(f"hello {{number}}")
            assert (await ada.receive_until("said"))["text"] == f"hello {{number}}"
            assert (await bob.receive_json())["text"] == f"hello {{number}}"

class TestInAClass:
    async def test_a_method_too(self, server):
        async with server.connect("/echo") as peer:
            await peer.send("from a method")
            assert (await peer.receive_until(dict))["text"] == "from a method"
"""

SYNC_TESTS = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_a_message_comes_back_and_nothing_of_the_test_before(client, number):
    with client.websocket_connect("/echo") as ada:
        ada.receive_nothing(0.01)
        ada.send_text(f"hello {number}")
        assert ada.receive_until("said")["text"] == f"hello {number}"
"""

STRICT = "pytestmark = pytest.mark.asyncio({})\nimport pytest_asyncio"
ANYIO = 'pytestmark = pytest.mark.anyio\n\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"'


SETTINGS = """
[pytest]
filterwarnings =
    error
    ignore:The configuration option "asyncio_default_fixture_loop_scope" is unset
"""


class Project:
    """A folder with a conftest.py, a main.py and tests."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.folder = pytester.path
        self._pytester = pytester
        self.write("main.py", APP)
        self.write("conftest.py", CONFTEST)
        self.write("pytest.ini", SETTINGS)
        pytester.syspathinsert()

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def pytest(self, *args: str) -> pytest.RunResult:
        return self._pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)

    def passes(self, *args: str, count: int) -> None:
        self.pytest(*args).assert_outcomes(passed=count)

    def passes_in_a_process(self, *args: str, count: int) -> None:
        command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args)
        self._pytester.run(*command, timeout=PATIENCE).assert_outcomes(passed=count)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in tuple(os.environ):
        if name.startswith("PYTEST_XDIST"):
            monkeypatch.delenv(name)
    return Project(pytester)


def async_tests(mark: str = "", fixture: str = "pytest.fixture") -> str:
    return ASYNC_TESTS.format(mark=mark, fixture=fixture)


@pytest.mark.parametrize(
    ("tests", "args"),
    [
        (async_tests(), ("-o", "asyncio_mode=auto")),
        (async_tests(STRICT.format(""), "pytest_asyncio.fixture"), ()),
        (async_tests(ANYIO), ()),
        (async_tests(ANYIO), ("-p", "no:asyncio")),
        (async_tests(ANYIO.partition("\n")[2]), ("-p", "no:asyncio", "-o", "anyio_mode=auto")),
    ],
    ids=["asyncio-auto", "asyncio-strict", "anyio", "anyio-alone", "anyio-auto"],
)
def test_async_tests_have_a_server_in_their_own_loop(
    project: Project, tests: str, args: tuple[str, ...], pytestconfig: pytest.Config
) -> None:
    if "anyio_mode=auto" in args and not _knows(pytestconfig, "anyio_mode"):
        pytest.skip("the oldest anyio that is promised has no such mode")
    project.write("test_it.py", tests)
    project.passes(*args, count=3)


def _knows(config: pytest.Config, option: str) -> bool:
    try:
        config.getini(option)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("scope", ["module", "session"])
def test_a_loop_that_serves_many_tests_serves_the_server_too(project: Project, scope: str) -> None:
    given = f"loop_scope={scope!r}"
    project.write("test_it.py", async_tests(STRICT.format(given), f"pytest_asyncio.fixture({given})"))
    project.passes(count=3)


def test_the_default_scope_of_loops_is_kept_to(project: Project) -> None:
    project.write("test_it.py", async_tests())
    scopes = ("asyncio_default_test_loop_scope=session", "asyncio_default_fixture_loop_scope=session")
    project.passes("-o", "asyncio_mode=auto", "-o", scopes[0], "-o", scopes[1], count=3)


def test_plain_tests_have_a_client_whose_app_is_started(project: Project) -> None:
    project.write("test_it.py", SYNC_TESTS)
    project.passes(count=2)
    project.passes("-p", "no:asyncio", "-p", "no:anyio", count=2)


def test_workers_of_xdist_have_them_too(project: Project) -> None:
    project.write("test_it.py", async_tests())
    project.write("test_plain.py", SYNC_TESTS)
    project.passes_in_a_process("-o", "asyncio_mode=auto", "-n", "2", count=5)


def test_parameters_of_the_app_are_those_of_the_tests(project: Project) -> None:
    project.write("conftest.py", CONFTEST.replace("@pytest.fixture", "@pytest.fixture(params=[1, 2])"))
    project.write("test_plain.py", SYNC_TESTS)
    project.passes(count=4)


def test_limits_are_given_by_a_fixture(project: Project) -> None:
    limits = (
        "import pytest\nfrom antiphon.server import ServerConfig\n"
        "@pytest.fixture\ndef antiphon_server_config():\n    return ServerConfig(max_message_size=5)\n"
        "async def test_long(server):\n    async with server.connect('/echo') as peer:\n"
        "        await peer.send('123456')\n        assert await peer.wait_closed() == 1009\n"
    )
    project.write("test_it.py", limits)
    project.passes("-o", "asyncio_mode=auto", count=1)


def test_another_plugins_fixture_of_the_same_name_is_not_touched(project: Project) -> None:
    project.write("djangoish.py", "import pytest\n@pytest.fixture\ndef client():\n    return 'theirs'\n")
    project.write(
        "test_it.py",
        "def test_theirs(client):\n    assert client == 'theirs'\n"
        "def test_ours(antiphon_client):\n    assert antiphon_client.app is not None\n",
    )
    project.passes("-p", "djangoish", count=2)


def test_a_fixture_of_the_project_overrides_ours_where_it_holds(project: Project) -> None:
    (project.folder / "mine").mkdir()
    project.write("mine/conftest.py", "import pytest\n@pytest.fixture\ndef client():\n    return 'mine'\n")
    project.write("mine/test_mine.py", "def test_mine(client):\n    assert client == 'mine'\n")
    project.write("test_it.py", SYNC_TESTS)
    project.passes(count=3)
    project.passes("mine", ".", count=3)


@pytest.mark.parametrize(
    ("test", "args", "told"),
    [
        ("def test_it(server): ...", (), "`server` serves in the event loop of the test, so the test has to be"),
        (
            "import pytest\n@pytest.mark.anyio\nasync def test_it(server): ...",
            ("-k", "trio", "-o", "asyncio_mode=strict"),
            "antiphon serves on asyncio, and anyio runs this test on trio: define a fixture `anyio_backend`",
        ),
        (
            "import pytest\n@pytest.mark.anyio\nasync def test_it(server): ...",
            ("-o", "asyncio_mode=auto"),
            "set asyncio_mode = strict, or take the anyio mark away",
        ),
        ("async def test_it(server): ...", ("-p", "no:asyncio"), "install pytest-asyncio, or mark the test with"),
    ],
)
def test_what_cannot_work_says_what_to_do(project: Project, test: str, args: tuple[str, ...], told: str) -> None:
    project.write("test_it.py", test)
    run = project.pytest(*args)
    assert run.ret == 1
    assert told in str(run.stdout)
    assert "Traceback" not in str(run.stdout)


def test_a_project_without_an_app_is_told_how_to_name_it(project: Project) -> None:
    (project.folder / "conftest.py").unlink()
    project.write("test_it.py", SYNC_TESTS)
    run = project.pytest()
    assert "define a fixture `app` that returns it" in str(run.stdout)
    assert "Traceback" not in str(run.stdout)


def test_a_failed_wait_shows_what_came_and_not_our_code(project: Project) -> None:
    project.write(
        "test_it.py",
        "def test_it(client):\n    with client.websocket_connect('/echo') as ada:\n        ada.send_text('hello')\n"
        "        ada.receive_until('left', timeout=2)\n",
    )
    told = str(project.pytest().stdout)
    assert "a message of type \"left\" did not come within 2 s; 1 came: {'type': 'said', 'text': 'hello'}" in told
    assert "testclient.py" not in told.split("short test summary")[0]


def test_a_pytest_that_asks_for_nothing_imports_nothing(project: Project) -> None:
    (project.folder / "conftest.py").unlink()
    project.write(
        "test_it.py",
        "import sys\ndef test_it():\n    assert 'pytest_antiphon' in sys.modules\n"
        "    assert not {'antiphon', 'starlette', 'uvicorn'} & set(sys.modules)\n",
    )
    project.passes_in_a_process(count=1)
