"""`antiphon run`: serve an application."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from antiphon.misspelt import closest
from antiphon.server import ServerConfig

from . import sockets as listening
from .certificates import check_certificate
from .forks import ForkServer
from .loading import Target, check_exists, load, locate
from .parameters import Proxies, Seconds
from .problem import Problem, WrongUsage
from .serving import Config, WsEngine, log_config, serve
from .state import choose
from .workers import forked

DEFAULT_METRICS_PATH = "/metrics"
LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")

VARIABLES = "ANTIPHON_RUN_"
"""The beginning of variables that are options of this command."""

_FILE = click.Path(exists=True, dir_okay=False)


def _read_options(_context: click.Context, _option: click.Parameter, path: str | None) -> str | None:
    """Options in the `--env-file` are there before click looks for them. The rest follows when the workers' fork
    server has the environment of the interpreter."""
    if path:
        read_env_file(path, VARIABLES)
    return path


@click.command("run", context_settings={"show_default": True})
@click.argument("app", metavar="APP")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all networks.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on; 0 takes a free one.")
@click.option("--uds", metavar="PATH", help="Listen on a Unix socket instead.")
@click.option("--fd", type=int, help="Listen on a socket inherited from a supervisor instead.")
@click.option("--workers", type=click.IntRange(1), help="Processes; their hubs are joined.  [default: 1]")
@click.option("--reload", is_flag=True, help="Start again when a source file changes.")
@click.option(
    "--reload-dir",
    "reload_dirs",
    multiple=True,
    metavar="DIR",
    envvar=f"{VARIABLES}RELOAD_DIR",
    help="Folder to watch (repeatable).",
)
@click.option("--factory", is_flag=True, help="APP is a function that returns the application.")
@click.option("--app-dir", default=".", metavar="DIR", help="Folder that APP's module is in.")
@click.option(
    "--env-file",
    type=_FILE,
    is_eager=True,
    callback=_read_options,
    help="KEY=VALUE lines to put into the environment first.",
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="info",
    help="Lowest level of the lines to log.",
)
@click.option("--access-log/--no-access-log", default=True, help="One line per HTTP request and handshake.")
@click.option(
    "--mask",
    "masked",
    multiple=True,
    metavar="NAME",
    envvar=f"{VARIABLES}MASK",
    help="A query parameter to log as *** (repeatable).",
)
@click.option(
    "--ws",
    type=click.Choice([engine.value for engine in WsEngine]),
    default=WsEngine.ANTIPHON.value,
    help="WebSocket protocol engine.",
)
@click.option("--ws-max-size", type=click.IntRange(1), metavar="BYTES", help="Longest message.  [default: 16 MiB]")
@click.option(
    "--ws-ping-interval", type=Seconds(), default=20.0, metavar="SECONDS", help="Between pings; 0 sends none."
)
@click.option(
    "--ws-ping-timeout", type=Seconds(), default=20.0, metavar="SECONDS", help="A peer silent longer is gone."
)
@click.option("--lifespan", type=click.Choice(["auto", "on", "off"]), default="auto", help="ASGI lifespan.")
@click.option("--root-path", default="", metavar="PATH", help="Where a proxy mounts the application.")
@click.option("--proxy-headers/--no-proxy-headers", default=True, help="Believe X-Forwarded-* of trusted proxies.")
@click.option(
    "--forwarded-allow-ips", type=Proxies(), metavar="LIST", help="Trusted proxies, comma separated.  [default: local]"
)
@click.option("--ssl-keyfile", type=_FILE, help="Private key (PEM); with --ssl-certfile serves https and wss.")
@click.option("--ssl-certfile", type=_FILE, help="Certificate (PEM).")
@click.option("--ssl-keyfile-password", help="Password of the private key.")
@click.option("--state", metavar="PATH", help="File that hands histories over a restart.  [default: one of this app]")
@click.option("--no-state", is_flag=True, help="A restart ends all histories.")
@click.option("--limit-concurrency", type=click.IntRange(1), metavar="N", help="More connections than this get 503.")
@click.option("--metrics", is_flag=True, help="Show Prometheus the numbers of all workers, at --metrics-path.")
@click.option("--metrics-path", default=DEFAULT_METRICS_PATH, metavar="PATH", help="Where --metrics shows them.")
@click.option(
    "--timeout-graceful-shutdown",
    type=click.IntRange(0),
    default=10,
    metavar="SECONDS",
    help="How long a stop waits for endpoints before it cancels them.",
)
def command(app: str, **options: Any) -> None:
    """Serve APP: module:attribute, a module that defines `app`, or a file.

    \b
    antiphon run main:app --reload
    antiphon run shop.main --host 0.0.0.0 --port 80 --workers 4
    antiphon run examples/echo.py
    """
    _check_variables(click.get_current_context().command)
    with forked(options["reload"] or (options["workers"] or 1) > 1) as forks:
        _run(app, forks, options)


def _run(app: str, forks: ForkServer | None, options: dict[str, Any]) -> None:
    if options["env_file"]:
        read_env_file(options["env_file"])
    target = locate(app, options["app_dir"])
    folder = sys.path[0]
    if options["reload"]:
        check_exists(target)
    else:
        load(target, factory=options["factory"])
    config = configure(target, **options)
    sockets = _listen(options["host"], options["port"], options["uds"], options["fd"])
    lasting = options["port"] != 0 or options["uds"] is not None or options["fd"] is not None
    state = choose(options["state"], options["no_state"], str(target), folder, sockets, lasting=lasting)
    check = partial(load, target, factory=options["factory"])
    serve(config, sockets, check=check, state=state, forks=forks)


def _check_variables(command: click.Command) -> None:
    """A misspelt variable would be an option that is not set, and nobody would know. Raises `WrongUsage`."""
    flags = [flag for option in command.params for flag in option.opts if flag.startswith("--")]
    known = {VARIABLES + flag[2:].replace("-", "_").upper() for flag in flags}
    known |= {VARIABLES + (option.name or "").upper() for option in command.params}
    for variable in os.environ:
        if variable.startswith(VARIABLES) and variable not in known:
            meant = closest(variable, sorted(known))
            hint = (
                f"did you mean {meant}?"
                if meant
                else "antiphon run --help lists the options: --port is ANTIPHON_RUN_PORT"
            )
            raise WrongUsage(f"{variable} in the environment names no option of antiphon run", hint)


def configure(target: Target, **options: Any) -> Config:
    """uvicorn's configuration from the command's options. Raises `Problem` for contradictions."""
    engine = WsEngine(options["ws"])
    if engine.missing_package:
        raise Problem(f"--ws {engine.value} needs a package: pip install {engine.missing_package}")
    if engine is WsEngine.ANTIPHON:
        _check_limits()
    if options["ssl_keyfile"] and not options["ssl_certfile"]:
        raise WrongUsage("--ssl-keyfile is given without --ssl-certfile")
    if options["ssl_certfile"]:
        check_certificate(options["ssl_certfile"], options["ssl_keyfile"], options["ssl_keyfile_password"])
    if options["reload"] and (options["workers"] or 1) > 1:
        raise WrongUsage("--reload serves with one process", "leave out --workers while developing")
    metrics_path = _metrics_path(options["metrics_path"]) if options["metrics"] else None
    if metrics_path is None and options["metrics_path"] != DEFAULT_METRICS_PATH:
        raise WrongUsage("--metrics-path is given without --metrics, and would show nothing", "give both, or none")
    sizes = {"ws_max_size": options["ws_max_size"]} if options["ws_max_size"] else {}
    return Config(
        str(target),
        host=options["host"],
        port=options["port"],
        uds=options["uds"],
        fd=options["fd"],
        http=engine.http,
        ws=engine.setting,
        ws_ping_interval=options["ws_ping_interval"] or None,
        ws_ping_timeout=options["ws_ping_timeout"] or None,
        lifespan=options["lifespan"],
        log_config=log_config(options["log_level"], options["masked"]),
        log_level=options["log_level"],
        access_log=options["access_log"],
        reload=options["reload"],
        reload_dirs=list(options["reload_dirs"]) or None,
        workers=options["workers"],
        proxy_headers=options["proxy_headers"],
        forwarded_allow_ips=options["forwarded_allow_ips"],
        root_path=options["root_path"],
        limit_concurrency=options["limit_concurrency"],
        backlog=listening.BACKLOG,
        timeout_graceful_shutdown=options["timeout_graceful_shutdown"],
        ssl_keyfile=options["ssl_keyfile"],
        ssl_certfile=options["ssl_certfile"],
        ssl_keyfile_password=options["ssl_keyfile_password"],
        factory=options["factory"],
        metrics_path=metrics_path,
        **sizes,
    )


def _check_limits() -> None:
    """The engine reads its limits with the first connection. A mistake in them should not wait for it."""
    try:
        ServerConfig.from_environ(os.environ)
    except ValueError as error:
        raise Problem(str(error)) from None


def _metrics_path(path: str) -> str:
    if importlib.util.find_spec("prometheus_client") is None:
        raise Problem("--metrics needs a package: pip install prometheus-client")
    if not path.startswith("/") or path == "/":
        raise WrongUsage(f"--metrics-path is a slash and a name, not {path!r}", "for example: /internal/metrics")
    return path.rstrip("/")


def _listen(host: str, port: int, uds: str | None, fd: int | None) -> list[Any]:
    if fd is not None:
        return [listening.adopt(fd)]
    if uds is not None:
        return [listening.listen_unix(uds)]
    return listening.listen(host, port)


def read_env_file(path: str, beginning: str = "") -> None:
    """Put `KEY=VALUE` lines into the environment, of keys with this beginning. Variables already set there win."""
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise Problem(f"{path}, line {number}: expected KEY=VALUE, found {text!r}")
        try:
            words = shlex.split(value, comments=True)
        except ValueError as error:
            raise Problem(f"{path}, line {number}: {error}") from None
        if key.strip().startswith(beginning):
            os.environ.setdefault(key.strip(), " ".join(words))
