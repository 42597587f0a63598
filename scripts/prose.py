"""The English of documents, docstrings and comments: RULES, over the prose that markdown-it finds. Code is skipped.

    python scripts/prose.py             every page, public docstring and note; exit code 1 when a rule is broken
    python scripts/prose.py FILE...     some pages or source files
    python scripts/prose.py --figures   words, "what" and semicolons of each page and module, and of all
    python scripts/prose.py --notes     the same of the notes of each source file

A rule stands here when native readers stumbled over its kind more than once. Each finding names the line, the words and
the way to mend them. `<!-- prose: skip -->` before a paragraph, list or table exempts it: for quotations.

A note is a comment or a docstring in `src/`, of any name and in any language. Pages may not say “what” for a thing at
all. Notes have a rate, for each file and for all.
"""

from __future__ import annotations

import ast
import functools
import io
import os
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = "src/antiphon/**/*.py"
NOTED: Final = tuple(f"src/**/*.{ending}" for ending in ("py", "pyx", "pxi", "pxd", "lua", "ts"))
PUBLIC: Final = ROOT / "tests" / "public_names.txt"
PAGES: Final = ("*.md", "docs/**/*.md", "examples/**/*.md", "src/**/*.md", "benchmarks/*.md", "tests/*.md")
SKIP: Final = "<!-- prose: skip -->"
LONGEST: Final = 32
"""Words of a sentence: room for a list, and none for a second thought."""
SEMICOLONS: Final = 0.35
"""In a hundred words of a page, and of all notes. The models have 0.09 to 0.35."""
WHATS: Final = 0.5
"""In a thousand words of all notes. structlog has 1.0, websockets 0.5."""
WHATS_OF_A_FILE: Final = 4.0
"""In a thousand words of one file's notes. One is always allowed."""


@dataclass(frozen=True, slots=True)
class Text:
    """A heading, a paragraph or a cell of a table: its words without markup, code as `X`."""

    line: int
    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern` is wrong in texts of these kinds. `instead` says how to mend it."""

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

NOTE_RULES: Final = tuple(rule for rule in RULES if rule.name in ("what", "who", "doubled"))

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
    named = [Path(one).resolve() for one in arguments if not one.startswith("-")]
    if "--figures" in arguments:
        figures(named or [*pages(), *modules()], texts_in)
        return
    if "--notes" in arguments:
        figures(named or noted(), notes_in)
        return
    found = [(path, finding) for path in named or [*pages(), *modules()] for finding in findings_in(path)]
    found += [(path, finding) for path in named or noted() for finding in findings_of_notes(path)]
    whats, semicolons = (0.0, 0.0) if named else rates_of_notes(noted())
    if whats > WHATS:
        sys.exit(f"error: “what” stands {whats:.2f} times in a thousand words of notes, and {WHATS:.2f} are the most")
    if semicolons > SEMICOLONS:
        sys.exit(f"error: a hundred words of notes have {semicolons:.2f} semicolons, and {SEMICOLONS:.2f} are the most")
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


def noted() -> list[Path]:
    """Every source file, of which all comments and docstrings count."""
    return sorted(set(matching(NOTED)))


def findings_in(path: Path) -> Iterator[Finding]:
    """Of a page or of a module, by the lines of the file."""
    for line, text in texts_in(path):
        for found in findings(text):
            yield (line + found[0] - 1, *found[1:])


def texts_in(path: Path) -> Iterator[tuple[int, str]]:
    """The page, or each docstring of a public name, with the line on which it begins."""
    if path.suffix == ".py":
        yield from docstrings(tree(path))
    elif path.suffix == ".md":
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


def by_rule(text: Text, rules: tuple[Rule, ...] = RULES) -> Iterator[Finding]:
    for rule in rules:
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
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements below a node. `ast.walk` takes four times as long for them."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner = getattr(node, block, ())
        for one in inner if isinstance(inner, list) else ():  # a lambda's body is none
            if isinstance(one, ast.stmt):
                yield one
            yield from statements(one)


@functools.cache
def public() -> frozenset[str]:
    """The public names without their modules, and the classes they inherit from: an editor shows those methods, too."""
    classes = {node.name: node for path in modules() for node in tree(path).body if isinstance(node, ast.ClassDef)}
    found = {name.rpartition(".")[2] for name in PUBLIC.read_text().split()}
    new = found & classes.keys()
    while new:
        bases = {name for one in new for base in classes[one].bases for name in re.findall(r"\w+", ast.unparse(base))}
        new = bases & classes.keys() - found
        found |= new
    return frozenset(found)


def docstrings(scope: ast.Module | ast.ClassDef) -> Iterator[tuple[int, str]]:
    """Those of public functions, classes, methods and attributes, with the line on which each begins."""
    before: ast.stmt | None = None
    for node in scope.body:
        name, said = "", node
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name, said = node.name, node.body[0]
        elif isinstance(before, ast.Assign | ast.AnnAssign):  # below an attribute
            name = ast.unparse(before.targets[0] if isinstance(before, ast.Assign) else before.target)
        shown = name in public() if isinstance(scope, ast.Module) else name == "__init__" or not name.startswith("_")
        if shown and name and (text := text_of(said)):
            yield said.lineno, text
        if shown and isinstance(node, ast.ClassDef):
            yield from docstrings(node)
        before = node


def text_of(node: ast.stmt) -> str:
    """The text that a statement is, examples with their indentation. Empty for any other statement."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return ""
    first, *others = str(node.value.value).splitlines() or [""]
    return "\n".join([first, *(line.removeprefix(" " * node.col_offset) for line in others)])


# Notes


def findings_of_notes(path: Path) -> Iterator[Finding]:
    """More than the rate of a file's notes, and every “whoever”."""
    found = [(line, *one[1:]) for line, text in notes(path) for one in by_rule(text, NOTE_RULES)]
    whats = [one for one in found if one[1] == "what"]
    if len(whats) > max(1, WHATS_OF_A_FILE * sum(len(text.words.split()) for _, text in notes(path)) / 1000):
        yield from whats
    yield from (one for one in found if one[1] != "what")


def rates_of_notes(paths: Iterable[Path]) -> tuple[float, float]:
    """Of all notes: “what”, of any kind, in a thousand words, and semicolons in a hundred."""
    said = " ".join(text.words for path in paths for _, text in notes(path))
    counted = max(1, len(said.split()))
    return 1000 * len(re.findall(r"\bwhat\b", said, re.IGNORECASE)) / counted, 100 * said.count(";") / counted


@functools.cache
def notes(path: Path) -> list[tuple[int, Text]]:
    """The prose of a file's notes, each with its line in the file."""
    return [(line + text.line - 1, text) for line, note in notes_in(path) for text in prose(note)]


def notes_in(path: Path) -> Iterator[tuple[int, str]]:
    """Each docstring, and each block of comments, with the line on which it begins."""
    text = path.read_text()
    if path.suffix == ".py":
        yield from ((node.lineno, said) for node in statements(tree(path)) if (said := text_of(node)))
        comments = [one for one in tokenize.generate_tokens(io.StringIO(text).readline) if one.type == tokenize.COMMENT]
        yield from blocks((one.start[0], one.line, one.string) for one in comments)
    elif path.suffix in MARKS:
        without_c = re.sub(r'cdef extern from \*:\s+""".*?"""', _blank, text, flags=re.DOTALL)
        for found in re.finditer(r'"""(.*?)"""|/\*\*(.*?)\*/', without_c, re.DOTALL):
            lines = [re.sub(r"^[ \t]*\*? ?", "", one) for one in (found[1] or found[2] or "").splitlines()]
            yield without_c.count("\n", 0, found.start()) + 1, "\n".join(lines)
        mark = re.compile(rf"(?:^|\s)(?:{MARKS[path.suffix]})(?:\s.*|$)")
        numbered = [(number, line, mark.search(line)) for number, line in enumerate(without_c.splitlines(), 1)]
        yield from blocks((number, line, found[0]) for number, line, found in numbered if found)


def _blank(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")


MARKS: Final = {".pyx": "#", ".pxi": "#", ".pxd": "#", ".lua": "--", ".ts": "//"}


def blocks(comments: Iterable[tuple[int, str, str]]) -> Iterator[tuple[int, str]]:
    """Comments by line and whole line, those on lines of their own in a row as one text."""
    first, last, parts = 0, -1, [""]
    for number, line, comment in comments:
        said = comment.strip().lstrip("#:-/ ")
        alone = line.strip() == comment.strip()
        if re.match(r"noqa|type:|pragma|fmt:|cython:|ts-", said):
            continue
        if alone and number == last + 1:
            parts.append(said)
        else:
            yield first, "\n".join(parts)
            first, parts = number, [said]
        last = number if alone else -1
    yield first, "\n".join(parts)


# Prose

PARSER: Final = MarkdownIt("commonmark").enable("table")


def prose(text: str) -> Iterator[Text]:
    """The headings, paragraphs, items and cells of a page."""
    kind, skipped, depth = "paragraph", -1, 0
    for token in PARSER.parse(text):
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


def figures(paths: list[Path], texts: Callable[[Path], Iterable[tuple[int, str]]]) -> None:
    """The figures by which the English was judged, page by page."""
    total = [0, 0, 0]
    print(f"{'':46}{'words':>7}{'what':>8}{'; ':>7}\n{'':46}{'':>7}{'/1000':>8}{'/100':>7}")
    for path in paths:
        text = " ".join(one.words for _, part in texts(path) for one in prose(part))
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
