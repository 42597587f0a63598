"""The programs in the documents run, and their links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import inspect
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import uvicorn
from websockets.asyncio.client import connect

import antiphon.cli
from antiphon.server import ServerConfig
from antiphon.wire import DeflateConfig
from tests.commands import ROOT, run
from tests.patience import PATIENCE

DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("src/**/*.md")]
)
AS_FILES = (
    ROOT / "docs" / "testing.md",
    ROOT / "docs" / "howto" / "write-a-backend.md",
    *(ROOT / "docs" / "tutorial" / f"{step}.md" for step in ("5-tests", "6-live")),
)
IN_ORDER = [document for document in DOCUMENTS if document not in AS_FILES]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_program_of_the_readme_is_a_chat(tmp_path: Path, workers: str) -> None:
    (tmp_path / "main.py").write_text(blocks(ROOT / "README.md", "python")[0])
    async with run("main:app", "--workers", workers, app_dir=tmp_path) as server, asyncio.timeout(PATIENCE):
        async with connect(f"{server.url}/rooms/tea?name=ada") as ada:
            assert json.loads(await ada.recv())["joins"].keys() == {"ada"}
            await ada.send("hello")
            assert json.loads(await ada.recv()) == {"name": "ada", "text": "hello"}
            async with connect(f"{server.url}/rooms/tea?name=bob") as bob:
                assert json.loads(await bob.recv()) == {"name": "ada", "text": "hello"}
                assert json.loads(await bob.recv())["joins"].keys() == {"ada", "bob"}
                assert json.loads(await ada.recv())["joins"].keys() == {"bob"}


@pytest.mark.parametrize("document", IN_ORDER, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_python_in_a_document_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block after the other, each with the names of those before it, except for those that await at their top.

    The pages of `AS_FILES` are programs of several files, and run as such below and in tests/tutorial.
    """
    (tmp_path / "main.py").write_text(blocks(ROOT / "README.md", "python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {"start_workers": lambda env: None}
    try:
        for block in blocks(document, "python"):
            code = compile(block, str(document), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            if not code.co_flags & inspect.CO_COROUTINE:
                exec(code, names)
    finally:
        sys.modules.pop("main", None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_links_to_is_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_example_is_in_the_list_and_every_name_in_the_list_is_an_example() -> None:
    listed = set(re.findall(r"\]\((\w+\.py)\)", (ROOT / "examples" / "README.md").read_text()))
    assert listed == {path.name for path in (ROOT / "examples").glob("*.py")}


def test_every_page_is_in_the_index() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs" / "index.md").read_text()))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}


def files(document: Path, folder: Path) -> list[str]:
    """Write the blocks that begin with their file's name. Returns the names."""
    named = re.findall(r"^```\w+\n# ([\w/]+\.\w+)\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    for name, text in named:
        (folder / name).write_text(text)
    return [name for name, _ in named]


def test_the_tests_of_the_testing_page_pass_as_printed(tmp_path: Path) -> None:
    names = files(ROOT / "docs" / "testing.md", tmp_path)
    assert {"main.py", "conftest.py", "pyproject.toml", "test_client.py", "test_server.py", "test_time.py"} == set(
        names
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = (sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE)
    tests = sum(text.count("def test_") for text in blocks(ROOT / "docs" / "testing.md", "python"))
    assert re.search(rf"^{tests} passed in", ran.stdout, re.MULTILINE), ran.stdout + ran.stderr


def shown_commands() -> list[tuple[str, list[str]]]:
    """Each call of `antiphon` and `uvicorn` in a shell block, with the page it is on."""
    found = []
    for document in DOCUMENTS:
        text = "\n".join(blocks(document, "sh")).replace("\\\n", " ")
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            for _, part in itertools.groupby(words, lambda word: word == "|"):
                name, *arguments = part
                if name in ("antiphon", "uvicorn"):
                    found.append((f"{document.relative_to(ROOT)}: {line}", [name, *arguments]))
    return found


@pytest.mark.parametrize(("line", "words"), shown_commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_command_in_a_document_is_understood(
    line: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").touch()
    name, *arguments = words
    command: click.Command = uvicorn.main if name == "uvicorn" else antiphon.cli.main
    if isinstance(command, click.Group):
        with command.make_context(name, arguments[:1]) as context:
            found = command.get_command(context, arguments[0])
        assert found is not None, line
        command, arguments = found, arguments[1:]
    with command.make_context(name, arguments):
        pass


UNITS = {"B": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "s": 1.0}


def test_the_table_of_limits_has_every_field_with_its_default() -> None:
    told: dict[str, str] = {}
    for row in re.findall(r"^\| (`.*?) \| (.*?) \|(.*)\|$", (ROOT / "docs" / "server.md").read_text(), re.MULTILINE):
        names = re.findall(r"`(\w+)`", row[0])
        defaults = row[1].split(" (")[0].split(", ")
        told.update(zip(names, defaults * len(names) if len(defaults) == 1 else defaults, strict=True))
        told.update(re.findall(r"`(\w+)`, (\d+ s)", row[2]))
    fields = {field.name: getattr(ServerConfig(), field.name) for field in dataclasses.fields(ServerConfig)}
    assert told.keys() == fields.keys()
    for name, default in fields.items():
        match default:
            case None:
                assert told[name] == "off", name
            case int() | float():
                number, unit = told[name].split()
                assert float(number) * UNITS[unit] == default, name
            case DeflateConfig():
                assert told[name] == f"on from {default.threshold} bytes"
            case _:
                assert default == (), name
                assert told[name] == "none"
