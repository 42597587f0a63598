"""`antiphon run` serves its argument, or says why it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import WebSocketException

import antiphon as antiphon_package
from antiphon.cli import main
from antiphon.cli.loading import Target, load
from antiphon.cli.run import command as run_command
from antiphon.cli.serving import Config
from tests.commands import ANTIPHON, antiphon, run
from tests.patience import PATIENCE
from tests.serving import HOST, ServedProcess, serve_process

from .certificates import self_signed

APP = """\
import os
from antiphon import App, APIRouter, WebSocket

app = App()
router = APIRouter()
number = 7

@app.websocket("/")
async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(f"{os.getpid()} {os.environ.get('GREETING', 'hello')}")

def make() -> App:
    return app

class Shop(App):
    def __init__(self) -> None:
        super().__init__()
        self.add_api_websocket_route("/", greet)

class PerScope:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    (tmp_path / "other.py").write_text("from antiphon import App\nchat = App()\n")
    (tmp_path / "broken.py").write_text("import antiphon\nprint(1 / 0)\n")
    (tmp_path / "needy.py").write_text("import surely_not_installed\n")
    (tmp_path / "typo.py").write_text("def f(:\n")
    (tmp_path / "misread.py").write_text("from antiphon import Websocket\n")
    (tmp_path / "fast.py").write_text("from antiphon import FastAPI\n")
    (tmp_path / "twisted.py").write_text("import main\n\n@main.app.websocket('/ws')\ndef sync(websocket): ...\n")
    package = tmp_path / "shop" / "web"
    package.mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "site.py").write_text("from ..web import __name__ as name\n" + APP)
    return tmp_path


async def hear(url: str) -> str:
    async with connect(url) as client:
        return str(await client.recv())


@pytest.mark.parametrize(
    "target", ["main:app", "main", "main.py", "./main.py:app", "shop.web.site:app", "shop/web/site.py"]
)
async def test_an_app_is_found_by_module_or_by_file(folder: Path, target: str) -> None:
    async with run(target, app_dir=folder) as server:
        assert (await hear(server.url)).endswith("hello")


async def test_a_factory_is_called(folder: Path) -> None:
    async with run("main:make", "--factory", app_dir=folder) as server:
        assert (await hear(server.url)).endswith("hello")


async def test_app_dir_names_the_folder_to_import_from(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    async with run("main:app", "--app-dir", str(folder), app_dir=elsewhere) as server:
        assert (await hear(server.url)).endswith("hello")


async def test_an_env_file_is_read_and_the_environment_wins_over_it(folder: Path) -> None:
    (folder / ".env").write_text("# greeting\nexport GREETING='good day'  # polite\n\n")
    async with run("main", "--env-file", ".env", app_dir=folder) as server:
        assert (await hear(server.url)).endswith("good day")
    async with serve_process(
        "main", "--env-file", ".env", app_dir=folder, command=(*ANTIPHON, "run"), env={"GREETING": "hi"}
    ) as server:
        assert (await hear(server.url)).endswith("hi")


async def test_options_may_come_from_the_environment(folder: Path) -> None:
    async with serve_process(
        "main", app_dir=folder, command=(*ANTIPHON, "run"), env={"ANTIPHON_RUN_LOG_LEVEL": "debug"}
    ) as server:
        await hear(server.url)
    finished = await antiphon("run", "main", cwd=folder, env={"ANTIPHON_RUN_PORT": "none"})
    assert finished.code == 2
    assert "none" in finished.stderr


async def test_options_may_come_from_the_env_file(folder: Path) -> None:
    (folder / ".env").write_text("ANTIPHON_RUN_PORT=none\n")
    finished = await antiphon("run", "main", "--env-file", ".env", cwd=folder)
    assert finished.code == 2
    assert "none" in finished.stderr
    finished = await antiphon("run", "main", "--env-file", ".env", cwd=folder, env={"ANTIPHON_RUN_PORT": "other"})
    assert "other" in finished.stderr


@pytest.mark.parametrize("variable", ["ANTIPHON_RUN_WORKER", "ANTIPHON_RUN_FORWARDED_ALLOW_IP"])
@pytest.mark.parametrize("in_file", [False, True])
async def test_a_misspelt_variable_is_no_option_that_nobody_sets(folder: Path, variable: str, in_file: bool) -> None:
    (folder / ".env").write_text(f"{variable}=2\n")
    options = ("--env-file", ".env") if in_file else ()
    finished = await antiphon("run", "main", *options, cwd=folder, env={} if in_file else {variable: "2"})
    assert finished.code == 2
    assert f"{variable} in the environment names no option" in finished.stderr
    assert f"did you mean {variable}S?" in finished.stderr


def test_each_option_is_a_variable_of_its_name() -> None:
    variables = {"ANTIPHON_RUN_MASK": "invite code", "ANTIPHON_RUN_RELOAD_DIR": "src lib", "ANTIPHON_RUN_UDS": "/run/x"}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(name, value)
        with (
            main.make_context("antiphon", ["run"]) as context,
            run_command.make_context("run", ["main"], parent=context) as made,
        ):
            assert made.params["masked"] == ("invite", "code")
            assert made.params["reload_dirs"] == ("src", "lib")
            assert made.params["uds"] == "/run/x"


@pytest.mark.parametrize("engine", ["antiphon", "websockets-sansio", "wsproto"])
async def test_each_engine_serves(folder: Path, engine: str) -> None:
    async with run("main", "--ws", engine, app_dir=folder) as server:
        assert (await hear(server.url)).endswith("hello")


async def test_workers_are_processes_that_share_one_port(folder: Path) -> None:
    async with run("main", "--workers", "2", app_dir=folder) as server:
        seen: set[str] = set()
        async with asyncio.timeout(PATIENCE):
            while len(seen) < 2:
                seen.update(await asyncio.gather(*(hear(server.url) for _ in range(8))))


async def test_workers_end_in_order_though_their_supervisor_was_killed(folder: Path) -> None:
    (folder / "main.py").write_text(APP.replace("hello')}\")", "hello')}\")\n    await websocket.receive()"))
    async with run("main", "--workers", "2", app_dir=folder) as server, connect(server.url) as client:
        await client.recv()
        server.process.kill()
        async with asyncio.timeout(PATIENCE):
            await client.wait_closed()
            assert client.close_code == 1012
            assert await nobody_listens(server)  # a worker that is left would


async def nobody_listens(server: ServedProcess) -> bool:
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, server.port)
        except ConnectionError:
            return True
        writer.close()
        await asyncio.sleep(0.05)


async def sooner_or_later(comes: Callable[[float], Awaitable[bool]], folder: Path) -> None:
    """The worker may answer before its parent watches, so one save alone may be missed; but a save amid a slow restart
    starts it anew, so there is more and more time between them."""
    for within in (4.0, 8.0, 16.0, 32.0, 64.0):
        if await comes(within):
            return
        (folder / "main.py").touch()
    pytest.fail("the change was not noticed")


async def test_reload_serves_the_new_source(folder: Path) -> None:
    async with run("main", "--reload", app_dir=folder) as server:
        assert (await hear(server.url)).endswith("hello")
        (folder / "main.py").write_text(APP.replace("'hello'", "'new source'"))
        await sooner_or_later(partial(becomes, server.url, "new source"), folder)


async def said(server: ServedProcess, words: str, within: float) -> bool:
    try:
        await server.wait_for_line(words, timeout=within)
    except TimeoutError:
        return False
    return True


async def becomes(url: str, words: str, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            while True:
                # Between two workers nobody answers, or the one that stops says 503.
                with contextlib.suppress(ConnectionError, WebSocketException):
                    if (await hear(url)).endswith(words):
                        return True
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False


async def test_source_that_does_not_import_is_explained_and_the_next_change_is_tried(folder: Path) -> None:
    async with run("main", "--reload", app_dir=folder) as server:
        assert (await hear(server.url)).endswith("hello")
        (folder / "main.py").write_text(f"{APP}\ndef f(:\n")
        await sooner_or_later(partial(said, server, "Waiting for the next change"), folder)
        (folder / "main.py").write_text(APP.replace("'hello'", "'repaired'"))
        await sooner_or_later(partial(becomes, server.url, "repaired"), folder)
    assert "module 'main' cannot be imported" in server.log
    assert "SyntaxError" in server.log


async def test_a_second_interrupt_stops_at_once_without_tracebacks(folder: Path) -> None:
    (folder / "main.py").write_text(
        f"{APP}\n@app.websocket('/stay')\nasync def stay(websocket: WebSocket) -> None:\n"
        "    await websocket.accept()\n    await __import__('asyncio').Event().wait()\n"
    )
    async with run("main", "--timeout-graceful-shutdown", "1000", app_dir=folder) as server:
        async with connect(f"{server.url}/stay"):
            server.process.send_signal(signal.SIGINT)
            await server.wait_for_line("Waiting for connections to close|Closing 1 WebSocket")
            server.process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                assert await server.process.wait() == 0, server.log
    assert "Forced to stop" in server.log


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("not PEM", "main.py is not a certificate"),
        ("no key", "--ssl-keyfile names a key"),
        ("other key", "does not belong to the certificate"),
        ("encrypted", "--ssl-keyfile-password is needed"),
        ("wrong password", "--ssl-keyfile-password does not open it"),
    ],
)
async def test_a_certificate_that_cannot_be_served_is_explained(folder: Path, case: str, told: str) -> None:
    (folder / "other").mkdir()
    key, certificate = map(str, self_signed(folder, "love" if case in ("encrypted", "wrong password") else None))
    options = {
        "not PEM": ["--ssl-certfile", "main.py"],
        "no key": ["--ssl-certfile", certificate],
        "other key": ["--ssl-certfile", certificate, "--ssl-keyfile", str(self_signed(folder / "other")[0])],
        "encrypted": ["--ssl-certfile", certificate, "--ssl-keyfile", key],
        "wrong password": ["--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-keyfile-password", "hate"],
    }
    finished = await antiphon("run", "main", "--port", "0", *options[case], cwd=folder)
    assert finished.code == 1
    assert told in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("option", ["--ws-ping-interval", "--ws-ping-timeout"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "soon"])
async def test_a_time_between_pings_is_a_number_of_seconds(folder: Path, option: str, value: str) -> None:
    finished = await antiphon("run", "main", option, value, cwd=folder)
    assert finished.code == 2
    assert f"Invalid value for '{option}'" in finished.stderr


async def test_a_factory_that_is_an_application_is_explained(folder: Path) -> None:
    finished = await antiphon("run", "--factory", "main:app", cwd=folder)
    assert finished.code == 1
    assert "it is an application itself: antiphon run main:app" in finished.stderr


async def test_a_class_of_a_framework_is_no_factory_and_a_class_of_ones_own_is_one(folder: Path) -> None:
    finished = await antiphon("run", "--factory", "main:App", cwd=folder)
    assert finished.code == 1
    assert "main:App is the class App, not an application: it has no routes" in finished.stderr
    assert "did you mean main:app?" in finished.stderr
    async with run("main:Shop", "--factory", app_dir=folder) as server:
        assert (await hear(server.url)).endswith("hello")


def test_a_class_that_is_an_application_for_each_scope_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(folder), *sys.path])
    assert load(Target("main", "PerScope"), factory=False).__name__ == "PerScope"
    del sys.modules["main"]
    assert load(Target("starlette.endpoints", "WebSocketEndpoint"), factory=False) is not None


async def test_a_certificate_makes_it_wss(folder: Path) -> None:
    key, certificate = self_signed(folder)
    async with run("main", "--ssl-keyfile", str(key), "--ssl-certfile", str(certificate), app_dir=folder) as server:
        assert "https://127.0.0.1" in server.log
        heard = await antiphon("connect", f"wss://127.0.0.1:{server.port}", "--insecure", "--wait", "inf")
        assert heard.stdout.endswith("hello\n")


async def test_a_unix_socket_is_served_and_removed(folder: Path) -> None:
    path = folder / "chat.sock"
    process = await asyncio.create_subprocess_exec(
        *ANTIPHON, "run", "main", "--uds", str(path), cwd=folder, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while b"running on unix:" not in await process.stderr.readline():
            assert process.returncode is None
    async with unix_connect(str(path)) as client:
        assert str(await client.recv()).endswith("hello")
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0
    assert not path.exists()


async def test_an_inherited_socket_is_served(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = await asyncio.create_subprocess_exec(
            *(*ANTIPHON, "run", "main", "--fd", str(listener.fileno())),
            cwd=folder,
            pass_fds=[listener.fileno()],
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            assert (await hear(f"ws://127.0.0.1:{listener.getsockname()[1]}")).endswith("hello")
        finally:
            process.terminate()
            await process.wait()


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("mian", ["there is no module 'mian'", "did you mean main?"]),
        ("shop.wep:app", ["there is no module 'shop.wep'", "did you mean shop.web?"]),
        ("main.app", ["'main' is a module, not a package", "did you mean main:app?"]),
        ("main:ap", ["has no 'ap'", "did you mean main:app?"]),
        ("other", ["has no 'app'", "did you mean other:chat?"]),
        ("main:number", ["an int, not an ASGI application", "did you mean main:app?"]),
        ("main:greet", ["a function, not an ASGI application", "did you mean main:app?"]),
        ("main:router", ["an APIRouter, not an ASGI application", "app.include_router(router)"]),
        ("main:make", ["a function without parameters", "--factory"]),
        ("main:App", ["main:App is the class App, not an application", "did you mean main:app?"]),
        ("main:Shop", ["the class Shop, not an application", "calling it", "--factory main:Shop"]),
        ("nowhere/main.py", ["there is no file nowhere/main.py"]),
        ("man.py", ["there is no file man.py", "did you mean main.py?"]),
        ("hello world", ["is not a name of the form module:app"]),
        ("needy", ["imports 'surely_not_installed', which is not installed", "needy.py"]),
        ("broken", ["cannot be imported", "print(1 / 0)", "ZeroDivisionError"]),
        ("typo", ["cannot be imported", "SyntaxError"]),
        ("misread", ["cannot import name 'Websocket' from 'antiphon': did you mean WebSocket?"]),
        ("fast", ["cannot import name 'FastAPI' from 'antiphon': write from antiphon.fastapi import FastAPI"]),
        ("twisted", ["twisted.py", "line 3", "RegistrationError: a WebSocket endpoint must be an `async def`"]),
    ],
)
async def test_an_app_that_is_not_there_is_explained(folder: Path, target: str, told: list[str]) -> None:
    finished = await antiphon("run", target, cwd=folder)
    assert finished.code == 1
    for words in told:
        assert words in finished.stderr
    assert "Traceback" not in finished.stderr
    frame_of_ours = f'File "{Path(antiphon_package.__file__).parent}'
    assert frame_of_ours not in finished.stderr, "it mends nothing of theirs"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["rnu", "main:app"], "did you mean antiphon run?"),
        (["main:app"], "did you mean antiphon run main:app?"),
        (["serve"], "there are run, demo, connect, bench, publish, asyncapi, client, relay"),
    ],
)
def test_a_command_that_is_not_there_comes_with_what_was_meant(typed: list[str], meant: str) -> None:
    told = CliRunner().invoke(main, typed)
    assert told.exit_code == 2
    assert f"there is no command {typed[0]!r}" in told.output
    assert meant in told.output


def test_a_worker_has_more_time_to_start_than_an_interpreter_takes_on_a_busy_machine() -> None:
    assert Config("main:app", workers=2).timeout_worker_healthcheck >= 20


async def test_a_worker_that_dies_in_its_start_is_not_waited_for(folder: Path) -> None:
    # The supervisor asks whether it lives, and gets no answer any more.
    (folder / "patient.py").write_text(
        "import os, time\nfrom antiphon.cli.serving import Config, serve\nfrom antiphon.cli.sockets import listen\n"
        "if __name__ == '__mp_main__':\n    time.sleep(2)\n    os._exit(3)\n"
        "config = Config('main:app', workers=2, timeout_worker_healthcheck=1000)\n"
        "serve(config, listen('127.0.0.1', 0))\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "patient.py", cwd=folder)
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 3


async def test_a_port_in_use_is_told_with_its_owner(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = await antiphon("run", "main", "--port", str(port), cwd=folder)
    assert finished.code == 1
    assert f"port {port} is in use by process {os.getpid()}" in finished.stderr
    assert f"--port {port + 1}" in finished.stderr
    assert "Traceback" not in finished.stderr


@contextlib.contextmanager
def somebody_listens_on(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


async def test_a_unix_socket_in_use_is_left_alone_and_a_dead_one_replaced(folder: Path) -> None:
    path = folder / "s"
    with somebody_listens_on(path):
        finished = await antiphon("run", "main", "--uds", str(path), cwd=folder)
        assert finished.code == 1
        assert "a server is listening there" in finished.stderr
    process = await asyncio.create_subprocess_exec(
        *ANTIPHON, "run", "main", "--uds", str(path), cwd=folder, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while b"running on unix:" not in await process.stderr.readline():
            assert process.returncode is None
    process.terminate()
    await process.communicate()


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["--host", "no.such.host.invalid"], 1, "--host no.such.host.invalid"),
        (["--ssl-keyfile", "main.py"], 2, "without --ssl-certfile"),
        (["--reload", "--workers", "2"], 2, "--reload serves with one process"),
        (["--forwarded-allow-ips", "127.0.0.1, localhost"], 2, "'localhost' is no IP address or network, as 10.0.0.7"),
        (["--forwarded-allow-ips", "10.0.0.1/8"], 2, "is no IP address or network; write 10.0.0.0/8"),
        (["--forwarded-allow-ips", "*,10.0.0.1"], 2, "'*' is no IP address or network"),
        (["--metrics-path", "/numbers"], 2, "--metrics-path is given without --metrics"),
        (["--app-dir", "nowhere"], 1, "is not a folder"),
        (["--env-file", "broken.env"], 1, "broken.env, line 2: expected KEY=VALUE"),
        (["--fd", "99"], 1, "--fd 99"),
        (["--fd", "99"], 1, "the .socket unit is started before the service"),
        (["--log-level", "LOUD"], 2, "is not one of 'critical'"),
        (["--log-level", "INFO", "--fd", "99"], 1, "--fd 99"),
    ],
)
async def test_options_that_do_not_fit_are_explained(folder: Path, args: list[str], code: int, told: str) -> None:
    (folder / "broken.env").write_text("A=1\nnonsense\n")
    finished = await antiphon("run", "main", "--port", "0", *args, cwd=folder)
    assert finished.code == code
    assert told in finished.stderr
    assert "Traceback" not in finished.stderr


async def test_a_limit_that_is_none_is_told_at_the_start(folder: Path) -> None:
    finished = await antiphon("run", "main", "--port", "0", cwd=folder, env={"ANTIPHON_WS_SEND_TIMEOUT": "soon"})
    assert finished.code == 1
    assert "ANTIPHON_WS_SEND_TIMEOUT must be a number, not 'soon'" in finished.stderr


@pytest.mark.parametrize(("engine", "told"), [("antiphon", True), ("wsproto", False)])
async def test_the_engine_in_pure_python_is_told_at_the_start(folder: Path, engine: str, told: bool) -> None:
    pure = {"ANTIPHON_PURE": "1"}
    async with serve_process("run", "main:app", "--ws", engine, app_dir=folder, command=ANTIPHON, env=pure) as server:
        pass
    assert ("pure Python" in server.log) is told, server.log


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_startup_that_fails_exits_with_3(folder: Path, workers: str) -> None:
    (folder / "failing.py").write_text(
        "from contextlib import asynccontextmanager\nfrom antiphon import App\n"
        "@asynccontextmanager\nasync def lifespan(app):\n    raise RuntimeError('no database')\n    yield\n"
        "app = App(lifespan=lifespan)\n"
    )
    finished = await antiphon("run", "failing", "--port", "0", "--workers", workers, cwd=folder)
    assert finished.code == 3
    assert "no database" in finished.stderr


@pytest.mark.parametrize("command", [[], ["run"], ["demo"], ["connect"], ["publish"], ["relay"]])
async def test_every_command_has_a_help_page(command: list[str]) -> None:
    finished = await antiphon(*command, "--help")
    assert finished.code == 0
    assert "Usage: antiphon" in finished.stdout


async def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert (await antiphon("--version")).stdout.strip() == f"antiphon {version('antiphon')}"
