"""The command line: `antiphon run | demo | connect | bench | publish | asyncapi | client | relay`.

Each command lives in its own module, loaded when it is called. `--help` of one does not import the others.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Final

import click

from .problem import WrongUsage
from .process import importing

_COMMANDS: Final = {
    "run": "Serve an application.",
    "demo": "Serve the chat room that comes with antiphon.",
    "connect": "Talk to a WebSocket server from the terminal.",
    "bench": "Measure a WebSocket server with many connections.",
    "publish": "Send one message to a topic of a running hub.",
    "asyncapi": "Print the AsyncAPI document of an application.",
    "client": "Write a typed client for an application.",
    "relay": "Join the workers of another server command.",
}

_MODULES: Final = {"client": "generate"}
"""Where a command's module is not named like it: `client.py` is the WebSocket client of `connect`."""

_SETTINGS: Final = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "auto_envvar_prefix": "ANTIPHON",  # ANTIPHON_RUN_PORT=9000 is --port 9000, as containers like it
}


class _Commands(click.Group):
    """A group whose commands are imported by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        with importing():
            command = importlib.import_module(f".{_MODULES.get(cmd_name, cmd_name)}", __name__).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            is_app = ":" in name or name.endswith(".py")
            meant = [f"run {name}"] if is_app else difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f"did you mean antiphon {meant[0]}?" if meant else f"there are {', '.join(_COMMANDS)}"
            raise WrongUsage(f"there is no command {name!r}", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings=_SETTINGS)
@click.version_option(package_name="antiphon", message="%(prog)s %(version)s")
def main() -> None:
    """Real-time WebSockets for Python.

    \b
    antiphon run module:app        serve your application
    antiphon demo                  a chat room to look at
    antiphon connect ws://...      talk to any WebSocket server
    """
    if sys.stdin is None:  # closed, as some supervisors start a process
        sys.stdin = open(os.devnull)  # noqa: SIM115  # for as long as the process lives
