"""The package's own source as tests read it: each file is parsed and walked once for all that ask."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import antiphon

SOURCE = Path(antiphon.__file__).parent

_ASKED_FOR = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@functools.cache
def modules() -> tuple[Path, ...]:
    return tuple(sorted(SOURCE.rglob("*.py")))


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """All of a module, wherever they stand; so do the two below."""
    return [node for node in _nodes(path) if isinstance(node, ast.Import | ast.ImportFrom)]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in _nodes(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in _nodes(path) if isinstance(node, ast.ClassDef)]


@functools.cache
def _nodes(path: Path) -> list[ast.stmt]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, _ASKED_FOR)]


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())
