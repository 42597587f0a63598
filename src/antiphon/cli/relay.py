"""`antiphon relay`: somebody else's command that starts workers, with a relay that joins their hubs."""

from __future__ import annotations

import json
import logging
import os
import shutil
from typing import NoReturn

import click

from antiphon.hub.backends.relay import Supervisor

from .problem import Problem


@click.command("relay", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(command: tuple[str, ...]) -> None:
    """Run COMMAND, a server with several workers, and beside it a relay that joins their hubs.

    \b
    antiphon relay uvicorn main:app --workers 4
    antiphon relay gunicorn main:app -k uvicorn_worker.UvicornWorker -w 4

    COMMAND takes the place of this process: its process id, its signals and its exit code are the server's own. A hub
    without a URL, or with relay://, finds the relay by the environment. The relay ends when the server and its workers
    have ended, however they do.
    """
    if shutil.which(command[0]) is None:
        raise Problem(f"there is no command {command[0]!r}", "for example: antiphon relay uvicorn main:app --workers 4")
    os.environ.update(_start())
    os.execvp(command[0], command)


def _start() -> dict[str, str]:
    """Start the relay in a process that ends with us. Returns the environment variables for its workers."""
    life, ours = os.pipe()
    answer, told = os.pipe()
    if os.fork() == 0:
        os.close(ours)
        os.close(answer)
        _keep(life, told)
    os.close(life)
    os.close(told)
    with open(answer) as reading:
        environment: dict[str, str] = json.loads(reading.read() or "{}")
    if not environment:
        raise Problem("the relay could not start", "its own message is above")
    os.set_inheritable(ours, True)  # COMMAND and its workers hold it open for as long as one of them lives
    return environment


def _keep(life: int, told: int) -> NoReturn:
    """Hold a relay until nobody is left at the other end of `life`."""
    status = 1
    try:
        os.setsid()  # CTRL+C is for the server, whose workers still say goodbye to the relay
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
        with Supervisor() as relay:
            os.write(told, json.dumps(relay.environment).encode())
            os.close(told)
            os.read(life, 1)
        status = 0
    except BaseException:
        logging.exception("the relay ended")
    finally:
        os._exit(status)
