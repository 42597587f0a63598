"""Imports go downward only (ARCHITECTURE.md's table of parts), and the façades hold names, not logic."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import source
from tests.source import SOURCE

VOCABULARY = frozenset(
    {
        "version",
        "types",
        "status",
        "exceptions",
        "events",
        "shown",
        "masking",
        "tags",
        "rawbytes",
        "tagged",
        "heartbeat",
        "identity",
        "deadlines",
        "lazily",
        "misspelt",
        "resource",
        "networks",
    }
)

FACADES = frozenset(
    {
        "background",
        "concurrency",
        "datastructures",
        "middleware",
        "requests",
        "responses",
        "staticfiles",
        "templating",
        "websockets",
    }
)
"""Modules under FastAPI's names that only pass names on."""

LAYERS: dict[str, frozenset[str]] = {}
"""Part -> the parts it may import, itself and the vocabulary aside."""


def _allow(part: str, *parts: str) -> None:
    LAYERS[part] = frozenset(parts)


for _word in VOCABULARY:
    _allow(_word)
for _facade in FACADES - {"websockets", "datastructures"}:
    _allow(_facade)
_allow("wire")
_allow("clients")
_allow("connection")
_allow("hub")
_allow("websockets", "connection")
_allow("datastructures", "dependencies")
_allow("endpoints", "connection")
_allow("encoders")
_allow("server", "wire")
_allow("dependencies", "connection", "hub")  # to know the classes that are injected by annotation
_allow("security", "dependencies")
_allow("gate", "security", "connection", "dependencies", "hub")
_allow("messages", "gate", "connection", "dependencies")
_allow("routing", "gate", "connection", "dependencies", "messages", "security", "encoders")
_allow("asyncapi", "routing", "gate", "messages", "connection", "dependencies", "hub")
_allow(
    "app",
    "clients",
    "asyncapi",
    "routing",
    "gate",
    "messages",
    "dependencies",
    "connection",
    "hub",
    "server",
    "security",
    *FACADES,
)
EVERYTHING_BELOW = frozenset(LAYERS)
for _edge in ("cli", "demo", "testing", "testclient", "fastapi", "observability"):
    LAYERS[_edge] = EVERYTHING_BELOW | {"cli", "demo", "testing", "testclient", "observability"}
LAYERS["__main__"] = frozenset({"cli"})
LAYERS["__init__"] = EVERYTHING_BELOW


MODULES = tuple(path for path in source.modules() if "static" not in path.parts)


def _part(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def _imported_parts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, part) for each import of ours in the module, wherever it stands."""
    package = ["antiphon", *path.relative_to(SOURCE).parts[:-1]]
    for node in source.imports(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("antiphon."):
                yield node.lineno, name.split(".")[1]


def test_a_module_imports_only_what_lies_below_its_part() -> None:
    homeless = {_part(path) for path in MODULES} - set(LAYERS)
    assert not homeless, f"{homeless} have no place in the table of parts: give them one here and in ARCHITECTURE.md"
    upward = [
        f"{source.name(path)}:{line} imports {other}"
        for path in MODULES
        for line, other in _imported_parts(path)
        if other in LAYERS and other not in LAYERS[_part(path)] | VOCABULARY | {_part(path)}
    ]
    assert upward == []


def test_another_part_is_imported_by_its_full_name() -> None:
    out_of_part = [
        f"{source.name(path)}:{node.lineno}"
        for path in MODULES
        for node in source.imports(path)
        if isinstance(node, ast.ImportFrom) and 0 < len(path.relative_to(SOURCE).parts) - 1 < node.level
    ]
    assert out_of_part == []


def test_the_parts_form_no_cycle() -> None:
    edges: dict[str, set[str]] = {part: set() for part in LAYERS}
    for path in MODULES:
        edges[_part(path)] |= {other for _, other in _imported_parts(path) if other in LAYERS and other != _part(path)}
    finished: set[str] = set()

    def visit(part: str, above: tuple[str, ...]) -> None:
        assert part not in above, f"import cycle: {' -> '.join((*above, part))}"
        if part not in finished:
            for other in sorted(edges[part] - {"__init__"}):
                visit(other, (*above, part))
            finished.add(part)

    for part in sorted(edges):
        visit(part, ())


_FILES = frozenset(MODULES)


def _imported_modules(path: Path) -> Iterator[Path]:
    """The files of ours that a module imports from, wherever the import stands."""
    package = path.relative_to(SOURCE).parts[:-1]
    for node in source.imports(path):
        if isinstance(node, ast.Import):
            continue
        named = (node.module or "").split(".") if node.module else []
        if node.level:
            base = [*package[: len(package) + 1 - node.level], *named]
        elif named[:1] == ["antiphon"]:
            base = named[1:]
        else:
            continue
        for name in [alias.name for alias in node.names]:
            for parts in ([*base, name], base):
                if (found := SOURCE.joinpath(*parts).with_suffix(".py")) in _FILES:
                    yield found
                    break


def test_the_modules_of_a_part_form_no_cycle() -> None:
    finished: set[Path] = set()

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, f"import cycle: {' -> '.join(source.name(one) for one in (*above, path))}"
        if path not in finished:
            for other in sorted(set(_imported_modules(path)) - {path}):
                if _part(other) == _part(path):
                    visit(other, (*above, path))
            finished.add(path)

    for path in MODULES:
        visit(path, ())


@pytest.mark.parametrize(
    "name",
    ["clock", "environment", "envelope", "errors", "history", "message", "presence", "records", "store", "topics"],
)
def test_what_the_hubs_backends_stand_on_does_not_import_them(name: str) -> None:
    above = [source.name(path) for path in _imported_modules(SOURCE / "hub" / f"{name}.py") if "backends" in path.parts]
    assert above == []


def _facade_files() -> list[Path]:
    files = [SOURCE / "__init__.py", *sorted((SOURCE / "fastapi").rglob("*.py"))]
    for name in sorted(FACADES):
        files += [SOURCE / f"{name}.py"] if (SOURCE / f"{name}.py").exists() else sorted((SOURCE / name).rglob("*.py"))
    return files


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, also under `if TYPE_CHECKING` and its opposite."""
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from _statements(statement.body)
        else:
            yield statement


def test_a_facade_passes_names_on_and_does_nothing_else() -> None:
    logic = []
    for path in _facade_files():
        for statement in _statements(source.tree(path).body):
            is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            is_alias = isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Name | ast.Call | ast.List)
            is_import = isinstance(statement, ast.Import | ast.ImportFrom)
            is_absence = isinstance(statement, ast.Raise)  # of a module that antiphon has no counterpart of
            if not (is_docstring or is_alias or is_import or is_absence):
                logic.append(f"{source.name(path)}:{statement.lineno}")
    assert logic == []


def test_the_frameworks_own_code_never_imports_fastapi() -> None:
    importing = []
    for path in MODULES:
        for node in source.imports(path):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [] if node.level else [node.module or ""]
            importing += [source.name(path) for name in names if name.split(".")[0] == "fastapi"]
    assert importing == []
