"""The one way in which a command says that it cannot go on: the fault, and the remedy. Never a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import click


class Problem(click.ClickException):
    """Ends the command with exit code 1, after `error: what` and one line for each hint."""

    def __init__(self, what: str, *hints: str) -> None:
        super().__init__(what)
        self.hints: Sequence[str] = hints

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {self.message}", err=True, file=file)
        for hint in self.hints:
            click.echo(f"       {hint}".rstrip(), err=True, file=file)


class WrongUsage(Problem):
    """The arguments make no sense: exit code 2, as for click's own usage errors."""

    exit_code = 2
