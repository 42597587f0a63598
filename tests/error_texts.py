"""The texts of errors and log lines in the sources, as docs/errors shows them: `…` stands for each value.

A text counts where a user meets it: in a `raise`, in the call that makes an exception, in a line for the log, in a
warning, and in the name that one of these is given. Fragments of fewer than three words are parts of another text.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.commands import ROOT

SOURCES = ROOT / "src" / "antiphon"
FEWEST_WORDS = 3
LOGGED = {"debug", "info", "warning", "error", "exception", "critical", "log", "warn", "warn_about"}
ELSEWHERE = (
    "testing/hub_contract",  # a contract's words on a backend: their reader has the source open
    "clients/runtime.py",  # a copy of it stands in each generated client
    "wire/_native",
)


@functools.cache
def error_texts() -> dict[str, list[str]]:
    """By text: the modules that say it."""
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        module = path.relative_to(SOURCES).as_posix()
        if not module.startswith(ELSEWHERE):
            for text in texts_of(path):
                found.setdefault(text, []).append(module)
    return found


def texts_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    constants = {
        name: value for name, value in assignments(tree.body) if isinstance(value, ast.Constant | ast.JoinedStr)
    }
    found: set[str] = set()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in [tree, *functions]:
        told = [one for node in ast.walk(function) for one in said_by(node)]
        names = {node.id for one in told for node in ast.walk(one) if isinstance(node, ast.Name)}
        told += [constants[name] for name in names & constants.keys()]
        if function is not tree:
            told += [value for name, value in assignments(ast.walk(function)) if name in names]
        found |= {text for one in told for text in strings(one)}
    return {text for text in found if len(re.findall(r"(?<!\w)[^\W\d_]{2,}(?!\w)", text)) >= FEWEST_WORDS}


def said_by(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Raise) and node.exc is not None:
        yield node.exc
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in LOGGED or is_exception(name):
            yield from node.args
            yield from (one.value for one in node.keywords)


def is_exception(name: str) -> bool:
    kind = getattr(builtins, name, None)
    named = re.fullmatch(r"[A-Z]\w*(Error|Warning|Exception|Problem|Usage|Message|Token)|Problem", name)
    return named is not None or (isinstance(kind, type) and issubclass(kind, BaseException))


def assignments(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    """Each name that is given a value, and the value."""
    for node in nodes:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value


def strings(node: ast.AST) -> Iterator[str]:
    """The texts in an expression, each as whole as it is written."""
    match node:
        case ast.Constant(value=str(text)):
            yield re.sub(r"%(?:\.\d)?[a-z]", "…", text)
        case ast.JoinedStr():
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values)
            for one in node.values:
                if isinstance(one, ast.FormattedValue):
                    yield from strings(one.value)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from strings(child)
