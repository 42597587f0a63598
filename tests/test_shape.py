"""Rules that keep the source readable: short functions, short files, small classes, one name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from tests import source

LONGEST_FUNCTION = 60
LONGEST_FILE = 450
MOST_METHODS = 40


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for path in source.modules():
        for node in source.classes(path):
            yield source.name(path), node


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        (source.name(path), node.name)
        for path in source.modules()
        for node in source.functions(path)
        if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


def test_no_file_is_more_than_one_room() -> None:
    native = [path for path in source.SOURCE.rglob("*.p[xy][xi]") if path.suffix in (".pyx", ".pxi")]
    assert native
    lines = {
        source.name(path): sum(1 for line in path.read_text().splitlines() if line.strip())
        for path in (*source.modules(), *native)
    }
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}


def test_no_class_has_too_many_methods_counting_its_bases() -> None:
    known: dict[str, list[tuple[str, ast.ClassDef]]] = defaultdict(list)
    for file, node in classes():
        known[node.name].append((file, node))

    def methods(file: str, node: ast.ClassDef) -> set[str]:
        own = {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
        # A suite is a list of tests: none calls another, and nobody has to keep more than one in mind.
        own = {name for name in own if not name.startswith("test_")}
        for base in node.bases:
            base = base.value if isinstance(base, ast.Subscript) else base
            if isinstance(base, ast.Name) and base.id != node.name:
                same = [one for one in known[base.id] if one[0] == file]
                for other in same or known[base.id]:
                    own |= methods(*other)
        return own

    large = {node.name: count for file, node in classes() if (count := len(methods(file, node))) > MOST_METHODS}
    assert large == {}


def test_no_class_name_means_two_things() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, node in classes():
        if not node.name.startswith("_"):
            places[node.name].append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
