"""`antiphon asyncapi`: print the AsyncAPI document of an application, or the changes that break clients of an old
one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from antiphon.asyncapi import VERSIONS
from antiphon.asyncapi.changes import breaking_changes
from antiphon.asyncapi.serving import document_of, written
from antiphon.exceptions import RegistrationError

from .loading import load, locate
from .problem import Problem


@click.command("asyncapi", context_settings={"show_default": True})
@click.argument("app")
@click.option("--version", type=click.Choice(VERSIONS), default=VERSIONS[0], help="Version of the format.")
@click.option(
    "--check", metavar="OLD", help="Print the changes that break clients of the document OLD instead (exit code 1)."
)
@click.option("--output", "-o", metavar="FILE", help="Write the document to FILE.")
@click.option("--app-dir", default=".", metavar="DIR", help="Folder that the app's module is in.")
@click.option("--factory", is_flag=True, help="APP is a function that returns the application.")
def command(app: str, version: str, check: str | None, output: str | None, app_dir: str, factory: bool) -> None:
    """Print the AsyncAPI document of APP, given as module:app.

    \b
    antiphon asyncapi main:app -o asyncapi.json
    antiphon asyncapi main:app --check asyncapi.json

    With --check the exit code is 0 where every client of the old document still works, 1 where one does not, and each
    line says what breaks it.
    """
    old = None if check is None else _read(check)
    target = locate(app, app_dir)
    loaded = load(target, factory=factory)
    try:
        document = document_of(loaded() if factory else loaded).content(version)
    except TypeError as error:
        raise Problem(f"{target} has no document: {error}") from None
    except RegistrationError as error:
        raise Problem(str(error)) from None
    if old is None:
        _write(written(document, indent=2), output)
        return
    try:
        changes = breaking_changes(old, json.loads(written(document)))
    except ValueError as error:
        raise Problem(f"{check}: {error}") from None
    for change in changes:
        click.echo(str(change))
    if changes:
        raise click.exceptions.Exit(1)


def _write(text: bytes, path: str | None) -> None:
    if path is None:
        click.echo(text)
        return
    try:
        Path(path).write_bytes(text + b"\n")
    except OSError as error:
        raise Problem(f"{path} cannot be written: {error.strerror}") from None


def _read(path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise Problem(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Problem(f"{path} is not JSON: {error}", "antiphon asyncapi APP -o FILE writes one") from None
    if not isinstance(found, Mapping):
        raise Problem(f"{path} is no AsyncAPI document", "antiphon asyncapi APP -o FILE writes one")
    return found
