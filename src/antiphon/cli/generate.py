"""`antiphon client`: write a typed client for an application, out of its document."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from antiphon.asyncapi.serving import document_of, written
from antiphon.clients.document import UnusableDocument
from antiphon.clients.python import python
from antiphon.clients.typescript import javascript_module, typescript
from antiphon.exceptions import RegistrationError

from .loading import load, locate
from .problem import Problem, WrongUsage

WRITERS: Final[Mapping[str, Callable[[Mapping[str, Any], str], dict[str, str]]]] = {
    "typescript": typescript,
    "javascript": javascript_module,
    "python": python,
}
WITHIN: Final = 10.0
"""Seconds for a server to answer with its document."""
LARGEST: Final = 64 << 20


@click.command("client", context_settings={"show_default": True})
@click.argument("source")
@click.option("--language", type=click.Choice(list(WRITERS)), required=True, help="Language of the client.")
@click.option("-o", "--output", default=".", metavar="DIR", help="Folder to write to; made where it is missing.")
@click.option("--prefix", default="", help="Stands before the names of all types, for two clients in one program.")
@click.option("--app-dir", default=".", metavar="DIR", help="Folder that the app's module is in.")
@click.option("--factory", is_flag=True, help="SOURCE is a function that returns the application.")
def command(source: str, language: str, output: str, prefix: str, app_dir: str, factory: bool) -> None:
    """Write a typed client for SOURCE: an application (module:app), or the URL or file of its document.

    \b
    antiphon client main:app --language typescript -o web/src/chat
    antiphon client https://example.org/asyncapi.json --language python -o chat
    """
    if prefix and not prefix.isidentifier():
        raise WrongUsage(f"--prefix {prefix!r} cannot begin a name", "for example: --prefix Chat")
    document = _document(source, app_dir, factory)
    try:
        files = WRITERS[language](document, prefix)
    except UnusableDocument as error:
        raise Problem(f"no client can be made for {source}: {error}") from None
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            click.echo(str(folder / name))
    except OSError as error:
        raise Problem(f"{error.filename} cannot be written: {error.strerror}") from None


def _document(source: str, app_dir: str, factory: bool) -> Mapping[str, Any]:
    if source.startswith(("http://", "https://")):
        return _read(source, lambda: _fetched(source))
    if source.endswith(".json"):
        return _read(source, Path(source).read_bytes)
    target = locate(source, app_dir)
    loaded = load(target, factory=factory)
    try:
        content = document_of(loaded() if factory else loaded).content()
    except TypeError as error:
        raise Problem(f"{target} has no document: {error}") from None
    except RegistrationError as error:
        raise Problem(str(error)) from None
    found: Mapping[str, Any] = json.loads(written(content))
    return found


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=WITHIN) as answer:
        found: bytes = answer.read(LARGEST)
        return found


def _read(source: str, read: Callable[[], bytes]) -> Mapping[str, Any]:
    try:
        found = json.loads(read())
    except OSError as error:
        raise Problem(f"{source} cannot be read: {error}") from None
    except ValueError as error:
        raise Problem(f"{source} is not JSON: {error}", "antiphon asyncapi APP > FILE writes a document") from None
    if not isinstance(found, Mapping):
        raise Problem(f"{source} is no AsyncAPI document", "antiphon asyncapi APP > FILE writes one")
    return found
