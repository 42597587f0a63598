"""docs/errors has every error, log line, close code and reason that the sources have, and none that they have not."""

from __future__ import annotations

import ast
import builtins
import importlib
import itertools
import re
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt

from antiphon.messages.errors import CODES, FAULTS
from antiphon.wire.errors import Violation
from tests.commands import ROOT
from tests.error_texts import SOURCES, assignments, error_texts
from tests.public_names import public_names

PAGES = ROOT / "docs" / "errors"
BY_MOMENT = ("registration.md", "command-line.md", "running.md")


def rows(page: str) -> list[tuple[list[str], str]]:
    """Of each row of the page's tables: the code in its first cell, and the text of the others."""
    tokens = MarkdownIt("commonmark").enable("table").parse((PAGES / page).read_text())
    found: list[tuple[list[str], str]] = []
    column = 0
    for token in tokens:
        if token.type == "tr_open":
            found.append(([], ""))
            column = 0
        elif token.type in ("td_open", "th_open"):
            column += 1
        elif token.type == "inline" and found and column:
            if column == 1:
                found[-1][0].extend(one.content for one in token.children or () if one.type == "code_inline")
            else:
                found[-1] = (found[-1][0], f"{found[-1][1]} {token.content}".strip())
        elif token.type == "table_close":
            column = 0
    return found


def same(text: str) -> str:
    return " ".join(text.split())


def documented() -> dict[str, str]:
    return {same(text): meaning for page in BY_MOMENT for texts, meaning in rows(page) for text in texts}


def test_every_text_of_an_error_is_in_the_pages_and_says_what_to_do() -> None:
    pages = documented()
    missing = {text: where for text, where in error_texts().items() if same(text) not in pages}
    assert not missing, "write a row in docs/errors for each"
    assert not [text for text, meaning in pages.items() if len(meaning.split()) < 3]


def test_the_pages_have_no_text_that_the_sources_lost() -> None:
    assert set(documented()) - {same(text) for text in error_texts()} == set()


def test_a_text_stands_in_one_row() -> None:
    told = [same(text) for page in BY_MOMENT for texts, _ in rows(page) for text in texts]
    assert [text for text in told if told.count(text) > 1] == []


def exceptions() -> Iterator[type[BaseException]]:
    for name in public_names():
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        if isinstance(value, type) and issubclass(value, BaseException):
            yield value


def branches() -> Iterator[tuple[str, str]]:
    """Each exception in the drawn tree, with the one above it."""
    block = re.search(r"```text\n(Exception\n.*?)```", (PAGES / "index.md").read_text(), re.DOTALL)
    assert block is not None
    above: list[str] = []
    for line in block[1].splitlines():
        drawn = re.match(r"((?:│   |    |├── |└── )*)(\w+)", line)
        assert drawn is not None, line
        above[len(drawn[1]) // 4 :] = [drawn[2]]
        if len(above) > 1:
            yield drawn[2], above[-2]


def test_the_tree_has_every_public_exception_below_a_class_that_it_is() -> None:
    drawn = list(branches())
    public = {kind.__name__: kind for kind in exceptions()}
    assert set(public) <= {name for name, _ in drawn}
    for name, parent in drawn:
        if name in public:
            above = public.get(parent) or getattr(builtins, parent)
            assert issubclass(public[name], above), f"{name} is no {parent}"
            between = {
                one.__name__
                for one in public.values()
                if one not in (public[name], above) and issubclass(public[name], one) and issubclass(one, above)
            }
            assert between <= {other for one, other in drawn if one == name}, f"{name} is drawn too high"


def test_every_public_exception_says_when_it_is_raised() -> None:
    told = {name for names, meaning in rows("index.md") if meaning for name in names}
    assert {kind.__name__ for kind in exceptions()} - told <= {
        "ParameterDeclarationError",
        "DependencyCycleError",
        "DependencyScopeError",
        "RoutingError",
        "HubError",  # a base
    }


# Close codes


def sent() -> Iterator[tuple[int, str]]:
    """Each close code in the sources, and the reason beside it where there is one."""
    paths = [path for path in sorted(SOURCES.rglob("*.py")) if not {"testing", "clients"} & {*path.parts}]
    trees = [ast.parse(path.read_text()) for path in paths]
    constants = {name: said(value) for tree in trees for name, value in assignments(tree.body)}
    for node in (node for tree in trees for node in ast.walk(tree)):
        beside = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
        for one, following in itertools.zip_longest(beside, beside[1:]):
            if isinstance(one, ast.Name) and (code := re.match(r"WS_(\d{4})_", one.id)):
                yield (
                    int(code[1]),
                    constants.get(following.id, "") if isinstance(following, ast.Name) else said(following),
                )
        for name, value in assignments([node]):
            if name == "close_code" and isinstance(value, ast.Constant):
                yield int(str(value.value)), ""
            elif name == "close_reason":
                yield 0, said(value)


def said(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def close_codes() -> tuple[set[int], dict[str, str]]:
    """The codes of the first table, and of each reason in the second the codes."""
    text = (PAGES / "close-codes.md").read_text()
    codes = {int(code) for code in re.findall(r"^\| (\d{4}) \|", text, re.MULTILINE)}
    return codes, {name: meaning for names, meaning in rows("close-codes.md") for name in names}


def test_every_close_code_and_reason_in_the_sources_is_in_the_page() -> None:
    codes, reasons = close_codes()
    found = list(sent())
    assert {code for code, _ in found if code} <= codes
    assert {reason for _, reason in found if reason} - set(reasons) == set()
    assert len({reason for _, reason in found}) > 10, "the scan finds too little"


@pytest.mark.parametrize("violation", list(Violation))
def test_every_violation_of_the_protocol_is_in_the_page(violation: Violation) -> None:
    assert close_codes()[1][violation.reason].startswith(str(violation.close_code))


def test_every_code_of_an_error_frame_is_in_the_page() -> None:
    told = close_codes()[1]
    for code, message in CODES.items():
        assert told[code] == f"{message} {FAULTS.get(code, '–')}"
