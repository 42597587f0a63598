"""The English of documents and public docstrings: RULES, over the prose that markdown-it finds. Code is skipped.

    python scripts/prose.py             every page and public docstring; exit code 1 when a rule is broken
    python scripts/prose.py FILE...     some pages or modules
    python scripts/prose.py --figures   words, "what" and semicolons of each page and module, and of all

A rule stands here when native readers stumbled over its kind more than once. Each finding names the line, the words and
the way to mend them. `<!-- prose: skip -->` before a paragraph, list or table exempts it: for quotations.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = "src/antiphon/**/*.py"
PUBLIC: Final = ROOT / "tests" / "public_names.txt"
PAGES: Final = ("*.md", "docs/**/*.md", "examples/**/*.md", "src/**/*.md", "benchmarks/*.md", "tests/*.md")
SKIP: Final = "<!-- prose: skip -->"
LONGEST: Final = 32
"""Words of a sentence: room for a list, and none for a second thought."""
SEMICOLONS: Final = 0.35
"""In a hundred words of a page. The models have 0.09 to 0.35."""


@dataclass(frozen=True, slots=True)
class Text:
    """A heading, a paragraph or a cell of a table: its words without markup, code as `X`."""

    line: int
    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern` is wrong in texts of these kinds; `instead` says how to mend it."""

    name: str
    pattern: re.Pattern[str]
    instead: str
    kinds: tuple[str, ...] = ("heading", "paragraph", "cell")


def words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


RULES: Final = (
    Rule(
        "what",
        re.compile(r"\bwhat(?:ever)?\b(?! to\b| happens\b| happened\b)(?!’s)(?![^.!;]*\?)", re.IGNORECASE),
        "a noun: “the code that”, “the result”, “the messages”; or “that which” becomes the thing itself",
    ),
    Rule(
        "who",
        re.compile(r"(?:^|[.:;|] )(?:Who|Whom|Whoever|Whose)\b(?![^.!;]*\?)|\bwhoever\b"),
        "a noun: “a client that”, “users who”",
    ),
    Rule(
        "heading",
        re.compile(
            r"^(?:(?:from|as|of|by|at|whom|who|what(?! happens)|which|where|knowing)\b|other people)(?!.*\?$)",
            re.IGNORECASE,
        ),
        "the term that a reader searches for, as “Authentication” or “Limits”",
        ("heading",),
    ),
    Rule(
        "passive",
        words(r"(?:is|are|was|were|been|being|be) \w+ed by(?! default| then| hand)"),
        "the active voice: “X does it”",
    ),
    Rule(
        "foreign",
        re.compile(r"\b(?:(?:is|are) none(?! of)|in numbers|where that must not be|and the like)\b"),
        "plain English: say which thing is missing, or drop the words",
    ),
    Rule(
        "foreign",
        words(r"all the same|as a rule|as it were|ere|lest|thus|hence|therewith|therein|whereby"),
        "plain words",
    ),
    Rule("filler", words(r"simply|obviously|of course|easily|basically|very|quite"), "nothing: leave it out"),
    Rule("doubled", words(r"(the|an?|of|to|in|is|are|and|or|for|with|it) \1"), "the word once"),
)

ONE_WORD: Final = {
    # docs/glossary.md has the words on the right; these are others for the same thing.
    r"web[- ]sockets?": "WebSocket",
    r"end[- ]points?": "endpoint",
    r"back[- ]ends?": "backend",
    r"sub[- ]protocols?": "subprotocol",
    r"time[- ]outs?": "timeout",
    r"clos(?:ing|ure) codes?|codes? of closing": "close code",
    r"hand[- ]shakes?": "handshake",
    r"heart[- ]beats?": "heartbeat",
    r"middle ?wares": "middleware",
    r"out[- ]box(?:es)?|send queues?": "outbox",
    r"call[- ]backs?": "callback",
    r"life[- ]span": "lifespan",
}
_OTHERS: Final = [(words(other), word) for other, word in ONE_WORD.items()]
_SENTENCE: Final = re.compile(r"(?<=[.!?])[)”\"]?\s+(?=[A-Z“(X])|:\s+(?=[A-Z])")

Finding = tuple[int, str, str, str]


def main(*arguments: str) -> None:
    paths = [Path(one).resolve() for one in arguments if not one.startswith("-")] or [*pages(), *modules()]
    if "--figures" in arguments:
        figures(paths)
        return
    found = [(path, finding) for path in paths for finding in findings_in(path)]
    for path, (line, rule, quoted, instead) in found:
        print(f"{os.path.relpath(path)}:{line}: {rule}: “{quoted}”: {instead}")
    if found:
        sys.exit(f"error: {len(found)} places read badly; scripts/prose.py has the rules")


def pages() -> list[Path]:
    """Every page."""
    return sorted(set(matching(PAGES)))


def modules() -> list[Path]:
    """Every module, of which the docstrings of public names count."""
    return sorted(ROOT.glob(SOURCES))


def findings_in(path: Path) -> Iterator[Finding]:
    """Of a page or of a module, by the lines of the file."""
    for line, text in texts_in(path):
        for found in findings(text):
            yield (line + found[0] - 1, *found[1:])


def texts_in(path: Path) -> Iterator[tuple[int, str]]:
    """The page, or each docstring of a public name, with the line on which it begins."""
    if path.suffix == ".py":
        yield from docstrings(ast.parse(path.read_text()))
    else:
        yield 1, path.read_text()


def matching(patterns: Iterable[str]) -> Iterator[Path]:
    return (path for pattern in patterns for path in ROOT.glob(pattern))


def findings(text: str) -> Iterator[Finding]:
    """Line, rule, words, and what to write instead."""
    texts = list(prose(text))
    for one in texts:
        for check in CHECKS:
            yield from check(one)
    counted = sum(len(one.words.split()) for one in texts)
    semicolons = sum(one.words.count(";") for one in texts)
    if semicolons > max(2, SEMICOLONS * counted / 100):
        first = next(one for one in texts if ";" in one.words)
        yield first.line, "semicolons", f"{semicolons} in {counted} words", "full stops"


def by_rule(text: Text) -> Iterator[Finding]:
    for rule in RULES:
        if text.kind in rule.kinds:
            for match in rule.pattern.finditer(text.words):
                yield text.line, rule.name, around(text.words, match), rule.instead


def by_length(text: Text) -> Iterator[Finding]:
    for sentence in _SENTENCE.split(text.words):
        length = len(re.findall(r"[\w’'-]+", sentence))
        if length > LONGEST:
            yield text.line, "long", f"{sentence.strip()[:60]}…", f"{length} words: two or three sentences"


def by_glossary(text: Text) -> Iterator[Finding]:
    for pattern, word in _OTHERS:
        for match in pattern.finditer(text.words):
            yield text.line, "one word", match[0], f"“{word}”, as docs/glossary.md has it"


CHECKS: Final[tuple[Callable[[Text], Iterable[Finding]], ...]] = (by_rule, by_length, by_glossary)


def around(words: str, match: re.Match[str]) -> str:
    return words[max(0, match.start() - 15) : match.end() + 25].strip()


# Docstrings


@functools.cache
def public() -> frozenset[str]:
    """The public names without their modules, and the classes they inherit from: an editor shows those methods, too."""
    classes = {
        node.name: node
        for path in modules()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    found = {name.rpartition(".")[2] for name in PUBLIC.read_text().split()}
    new = found & classes.keys()
    while new:
        bases = {name for one in new for base in classes[one].bases for name in re.findall(r"\w+", ast.unparse(base))}
        new = bases & classes.keys() - found
        found |= new
    return frozenset(found)


def docstrings(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[int, str]]:
    """Those of public functions, classes, methods and attributes, with the line on which each begins."""
    before: ast.stmt | None = None
    for node in tree.body:
        name, said = "", node
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name, said = node.name, node.body[0]
        elif isinstance(before, ast.Assign | ast.AnnAssign):  # below an attribute
            name = ast.unparse(before.targets[0] if isinstance(before, ast.Assign) else before.target)
        shown = name in public() if isinstance(tree, ast.Module) else name == "__init__" or not name.startswith("_")
        if shown and name and (text := text_of(said)):
            yield said.lineno, text
        if shown and isinstance(node, ast.ClassDef):
            yield from docstrings(node)
        before = node


def text_of(node: ast.stmt) -> str:
    """The text that a statement is, examples with their indentation; empty for any other statement."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return ""
    first, *others = str(node.value.value).splitlines() or [""]
    return "\n".join([first, *(line.removeprefix(" " * node.col_offset) for line in others)])


# Prose


def prose(text: str) -> Iterator[Text]:
    """The headings, paragraphs, items and cells of a page."""
    kind, skipped, depth = "paragraph", -1, 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "html_block" and token.content.strip() == SKIP:
            skipped = depth
        elif token.type == "inline":
            if skipped < 0:
                yield Text((token.map or [0])[0] + 1, kind, said(token.children or []))
        elif token.type.startswith("heading"):
            kind = "heading" if token.nesting > 0 else "paragraph"
        elif token.type in ("th_open", "td_open"):
            kind = "cell"
        elif token.type in ("th_close", "td_close"):
            kind = "paragraph"
        depth += token.nesting
        if skipped >= 0 and token.nesting < 0 and depth == skipped:
            skipped = -1


def said(children: list[Token]) -> str:
    parts = []
    for one in children:
        if one.type == "code_inline":
            parts.append("X")
        elif one.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif one.type == "html_inline":
            parts.append(". " if one.content.startswith("<br") else "")
        else:
            parts.append(one.content if one.type == "text" else "")
    return "".join(parts)


def figures(paths: list[Path]) -> None:
    """The figures by which the English was judged, page by page."""
    total = [0, 0, 0]
    print(f"{'':46}{'words':>7}{'what':>8}{'; ':>7}\n{'':46}{'':>7}{'/1000':>8}{'/100':>7}")
    for path in paths:
        text = " ".join(one.words for _, part in texts_in(path) for one in prose(part))
        if not text:
            continue
        counted = [len(re.findall(r"\w+", text)), len(re.findall(r"\bwhat\b", text, re.IGNORECASE)), text.count(";")]
        total = [had + more for had, more in zip(total, counted, strict=True)]
        row(os.path.relpath(path), counted)
    row("all", total)


def row(name: str, counted: list[int]) -> None:
    of = max(counted[0], 1)
    print(f"{name:46}{counted[0]:7}{1000 * counted[1] / of:8.1f}{100 * counted[2] / of:7.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
