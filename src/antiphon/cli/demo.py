"""`antiphon demo`: serve the chat room that comes with antiphon."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
import webbrowser
from typing import Any, Final

import click

from . import sockets as listening
from .forks import ForkServer
from .serving import Config, WsEngine, log_config, serve
from .state import choose
from .workers import forked

APP: Final = "antiphon.demo:app"
FRIENDS: Final = "ANTIPHON_DEMO_FRIENDS"
"""Environment variable with the address for others, which the application tells its pages."""

USUAL_PORT: Final = 8000


@click.command("demo", context_settings={"show_default": True})
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 lets your phone in.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=USUAL_PORT, help="Port to listen on; 0 takes a free one."
)
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes; the chat is one all the same.")
@click.option("--state", metavar="PATH", help="File that hands messages over a restart.  [default: one of the demo]")
@click.option("--no-state", is_flag=True, help="A restart ends the conversation.")
@click.option("--open", "open_browser", is_flag=True, help="Open it in a browser.")
@click.option(
    "--log-level",
    type=click.Choice(["warning", "info", "debug"]),
    default="info",
    help="Lowest level of the lines to log.",
)
def command(host: str, port: int, workers: int, open_browser: bool, log_level: str, **state: Any) -> None:
    """Serve a chat room: rooms, people, history, and connections that come back.

    \b
    antiphon demo --open
    antiphon demo --host 0.0.0.0 --workers 2
    """
    with forked(workers > 1) as forks:
        _serve_room(host, port, workers, open_browser, log_level, state, forks)


def _serve_room(
    host: str,
    port: int,
    workers: int,
    open_browser: bool,
    log_level: str,
    state: dict[str, Any],
    forks: ForkServer | None,
) -> None:
    sockets = listening.listen(host, port)
    place = choose(state["state"], state["no_state"], APP, "", sockets, lasting=port != 0)
    config = Config(
        APP,
        host=host,
        port=port,
        workers=workers,
        http=WsEngine.ANTIPHON.http,
        ws=WsEngine.ANTIPHON.setting,
        log_config=log_config(log_level),
        log_level=log_level,
        access_log=log_level == "debug",
        timeout_graceful_shutdown=10,
    )
    friends = _for_friends(sockets[0])
    if friends is not None:
        os.environ[FRIENDS] = friends  # a page that was opened as localhost has no other way to know
    _invite(_here(sockets[0]), friends, port)
    if open_browser:
        threading.Thread(target=_open, args=(_here(sockets[0]),), daemon=True).start()
    serve(config, sockets, state=place, forks=forks)


def _invite(here: str, friends: str | None, port: int) -> None:
    click.echo()
    click.echo(f"  The chat room is at {click.style(here, bold=True, underline=True)}")
    if friends is None:
        command = f"antiphon demo --host 0.0.0.0{f' --port {port}' if port not in (0, USUAL_PORT) else ''}"
        click.echo(f"  Open it in two windows. To let others in: {command}")
    elif friends == here:
        click.echo("  Open it in two windows, or send the address to a friend.")
    else:
        click.echo(f"  Open it in two windows, or send a friend {click.style(friends, bold=True, underline=True)}")
    click.echo()


def _here(sock: socket.socket) -> str:
    address, port = sock.getsockname()[:2]
    if address in ("0.0.0.0", "::", "127.0.0.1"):
        return f"http://localhost:{port}"
    return listening.url(sock, secure=False)


def _for_friends(sock: socket.socket) -> str | None:
    """The address that others in the network can open. None: only this machine can."""
    address, port = sock.getsockname()[:2]
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return None
    if address not in ("0.0.0.0", "::"):
        return listening.url(sock, secure=False)
    return f"http://{_own_address() or socket.gethostname()}:{port}"


def _own_address() -> str | None:
    """The address by which others in the network reach this machine: that of the route to the outside."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: a datagram socket sends nothing by connecting
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _open(url: str) -> None:
    """The socket is bound already, so the browser only has to wait for the workers."""
    time.sleep(0.5)
    webbrowser.open(url)
