"""The judges of documents: `@asyncapi/parser` and ajv in node, and checks of our own for faults that both let pass."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from antiphon.asyncapi.draft07 import KEYWORDS, visit
from tests.built import CACHE, built, step

NODE: Final = Path(__file__).parent / "node"
INFORMATION: Final = 2
"""Severity: 0 is an error, 1 a warning."""


@functools.cache
def tools() -> Path:
    """The folder with the packages that `package-lock.json` names, installed once."""
    files = [NODE / name for name in ("package.json", "package-lock.json")]
    recipe = "".join(file.read_text() for file in files)

    def install(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        step("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder)

    return built(CACHE / "asyncapi", recipe, install)


@functools.cache
def _node() -> subprocess.Popen[str]:
    """node with the parser loaded, which takes it seconds. It is killed when we end: a process that a test has forked
    may hold its input open."""
    script = tools() / "validate.mjs"
    beside = script.with_name(f"validate.{os.getpid()}.mjs")
    shutil.copy(NODE / "validate.mjs", beside)
    beside.replace(script)  # in one step: another process may be about to read it
    process = subprocess.Popen(["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.wait)
    atexit.register(process.kill)
    return process


def judged(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The judgement of node on documents: each has `name`, `document` and `frames`."""
    node = _node()
    assert node.stdin is not None
    assert node.stdout is not None
    node.stdin.write(json.dumps(list(documents)) + "\n")
    node.stdin.flush()
    answer = node.stdout.readline()
    assert answer, f"node ended with {node.wait()}: see its traceback"
    results: list[dict[str, Any]] = json.loads(answer)
    return results


def complaints(documents: Sequence[Mapping[str, Any]], results: list[dict[str, Any]] | None = None) -> list[str]:
    """All faults of the documents, without the parser's informations. `results`: of `judged`."""
    found = []
    for result in judged(documents) if results is None else results:
        serious = [one for one in result["diagnostics"] if one[0] < INFORMATION]
        found += [f"{result['name']}: {one}" for one in [*serious, *result["wrong"]]]
        if not result["parsed"]:
            found.append(f"{result['name']}: is no document")
    for one in documents:
        found += [f"{one['name']}: {fault}" for fault in faults(one["document"])]
    return found


def faults(document: Mapping[str, Any]) -> Iterator[str]:
    """Faults that the parser lets pass: keywords of later drafts, placeholders without a parameter, keys and
    references."""
    for schema in _schemas(document):
        wrong: list[str] = []

        def see(one: Mapping[str, Any], wrong: list[str] = wrong) -> None:
            wrong += [key for key in one if key not in KEYWORDS and not key.startswith("x-")]
            if isinstance(one.get("discriminator"), Mapping) or ("$ref" in one and len(one) > 1):
                wrong.append(f"in {dict(one)}")

        visit(schema, see)
        yield from (f"keyword {key}" for key in wrong)
    for key, channel in document["channels"].items():
        names = set(re.findall(r"{(.*?)}", channel["address"]))
        if names != set(channel.get("parameters", {})):
            yield f"{key}: placeholders {names}, parameters {set(channel.get('parameters', {}))}"
    for place in ("channels", "operations"):
        yield from (f"key {key!r}" for key in document[place] if not re.fullmatch(r"[\w.\-]+", key, re.ASCII))
    text = json.dumps(document)
    for ref in set(re.findall(r'"\$ref": "(#[^"]*)"', text)):
        if _at(document, ref) is None:
            yield f"dangling {ref}"
    used = [one["$ref"] for operation in document["operations"].values() for one in operation["messages"]]
    if document["operations"] and any(used.count(ref) > 1 for ref in used if not ref.endswith("/error")):
        yield "a message of two operations"


def _schemas(document: Mapping[str, Any]) -> Iterator[Any]:
    yield from document.get("components", {}).get("schemas", {}).values()
    for channel in document["channels"].values():
        yield from (message["payload"] for message in channel["messages"].values())
        binding = channel.get("bindings", {}).get("ws", {})
        yield from (binding[part] for part in ("query", "headers") if part in binding)


def _at(document: Mapping[str, Any], ref: str) -> Any:
    found: Any = document
    for part in ref.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
