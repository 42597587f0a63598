"""`antiphon demo`: serve the chat room that comes with antiphon."""

from __future__ import annotations

import socket
import threading
import time
import webbrowser

import click

from . import sockets as listening
from .serving import Config, Engine, log_config, serve

APP = "antiphon.demo:app"


@click.command("demo", context_settings={"show_default": True})
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 lets your phone in.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes; the chat is one all the same.")
@click.option("--open", "open_browser", is_flag=True, help="Open it in a browser.")
@click.option(
    "--log-level", type=click.Choice(["warning", "info", "debug"]), default="info", help="What is worth a line."
)
def command(host: str, port: int, workers: int, open_browser: bool, log_level: str) -> None:
    """Serve a chat room: rooms, people, history, and connections that come back.

    \b
    antiphon demo --open
    antiphon demo --host 0.0.0.0 --workers 2
    """
    sockets = listening.listen(host, port)
    config = Config(
        APP,
        host=host,
        port=port,
        workers=workers,
        http=Engine.ANTIPHON.http,
        ws=Engine.ANTIPHON.setting,
        log_config=log_config(log_level),
        log_level=log_level,
        access_log=log_level == "debug",
        timeout_graceful_shutdown=10,
    )
    _invite(sockets[0])
    if open_browser:
        threading.Thread(target=_open, args=(_here(sockets[0]),), daemon=True).start()
    serve(config, sockets)


def _invite(sock: socket.socket) -> None:
    click.echo()
    click.echo(f"  The chat room is at {click.style(_here(sock), bold=True, underline=True)}")
    if sock.getsockname()[0] in ("0.0.0.0", "::") and (address := _own_address()):
        click.echo(f"  In your network:    http://{address}:{sock.getsockname()[1]}")
    click.echo("  Open it in two windows, or send the address to a friend.")
    click.echo()


def _here(sock: socket.socket) -> str:
    address, port = sock.getsockname()[:2]
    if address in ("0.0.0.0", "::", "127.0.0.1"):
        return f"http://localhost:{port}"
    return listening.url(sock, secure=False)


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
