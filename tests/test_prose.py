"""The rules for the English of documents, docstrings and comments find their kind, and leave good English alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.commands import ROOT

PROSE = ROOT / "scripts" / "prose.py"


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("antiphons_prose", PROSE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["antiphons_prose"] = module  # dataclasses look there for their own module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("what", "It sends what was missed."),
        ("what", "Whatever comes is dropped."),
        ("what", "| call | what it does |\n|---|---|\n| `x` | y |"),
        ("who", "Who comes later does not get the message."),
        ("who", "It is open to whoever reaches the port."),
        ("heading", "## From where"),
        ("heading", "## As whom"),
        ("heading", "## What it keeps to"),
        ("passive", "A token is issued by the route."),
        ("foreign", "A pattern that is none is an error."),
        ("foreign", "It fails all the same."),
        ("filler", "This is simply an endpoint."),
        ("doubled", "It closes the the connection."),
        ("one word", "The end-point and its web socket."),
        ("long", f"It sends {'one and another ' * 12}message."),
        ("semicolons", "One; two; three; four."),
    ],
)
def test_a_rule_finds_its_kind(prose: ModuleType, rule: str, text: str) -> None:
    assert rule in {name for _, name, _, _ in prose.findings(text)}


@pytest.mark.parametrize(
    "text",
    [
        "Errors say what to type instead. It shows what happens next.",
        "What does a connection cost?",
        "## What happens here",
        "## How a connection ends",
        "Clients who come back get it. It is on by default. `what` and `x; y; z; w` are code.",
        "```python\n# what is it; what; what; what\n```",
        "It is None, or none of these.",
        "<!-- prose: skip -->\n\nQuoted: whoever it is; what; it; says.\n\nThe next paragraph counts.",
    ],
)
def test_good_english_passes(prose: ModuleType, text: str) -> None:
    assert list(prose.findings(text)) == []


def test_only_the_paragraph_behind_the_comment_is_skipped(prose: ModuleType) -> None:
    text = "<!-- prose: skip -->\n\n- whatever\n- it is\n\nWhatever it is."
    assert [(line, name) for line, name, _, _ in prose.findings(text)] == [(6, "what")]


def test_a_finding_names_the_place_and_the_remedy(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nIt sends what was missed.\n")
    told = subprocess.run([sys.executable, PROSE, page], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert told.stdout.startswith("page.md:3: what: “It sends what was missed.”: a noun")
    assert told.stderr.startswith("error: 1 places read badly")


def test_the_words_of_the_glossary_are_those_that_the_rules_demand(prose: ModuleType) -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text().lower()
    known = {"WebSocket", "subprotocol", "timeout", "handshake", "heartbeat", "middleware", "callback", "lifespan"}
    assert [word for word in prose.ONE_WORD.values() if word not in known and f"**{word}**" not in glossary] == []


def test_the_documents_keep_the_rules(prose: ModuleType) -> None:
    found = {str(path.relative_to(ROOT)): list(prose.findings(path.read_text())) for path in prose.pages()}
    assert {name: told for name, told in found.items() if told} == {}
    assert len(found) > 40


MODULE = '''"""Whatever a module says of itself is for its readers."""

class Hub:
    """Rooms."""

    LIMIT = 7
    """Whoever comes after these waits."""
    _kept = 8
    """What it keeps."""

    def __init__(self) -> None:
        """Made.

        What is given is taken.
        """

    def _put(self) -> None:
        """What is put."""

    async def publish(self) -> None:
        """It sends what was missed.

            what = "code"
        """

class Letterbox:
    """What waits."""
'''


def test_docstrings_of_public_names_count_and_no_others(prose: ModuleType, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(MODULE)
    assert [(line, rule) for line, rule, _, _ in prose.findings_in(module)] == [(7, "who"), (14, "what"), (21, "what")]


def test_methods_that_a_public_class_inherits_count_too(prose: ModuleType) -> None:
    assert {"WebSocket", "RawWebSocket", "App", "RouteMethods"} < prose.public()


def test_the_docstrings_of_public_names_keep_the_rules(prose: ModuleType) -> None:
    found = {str(path.relative_to(ROOT)): list(prose.findings_in(path)) for path in prose.modules()}
    assert {name: told for name, told in found.items() if told} == {}


def test_the_docstrings_of_public_names_are_as_plain_as_the_models(prose: ModuleType) -> None:
    """structlog has one "what" in a thousand words, and 0.09 to 0.35 semicolons in a hundred are usual."""
    texts = [one.words for path in prose.modules() for _, text in prose.texts_in(path) for one in prose.prose(text)]
    words = sum(len(text.split()) for text in texts)
    assert words > 10_000
    assert 1000 * sum(text.lower().split().count("what") for text in texts) / words <= 1.0
    assert 100 * sum(text.count(";") for text in texts) / words <= 0.35


NOTES = {
    "module.py": '''"""A table."""

# It sends what was
# missed, and the the rest.
LIMIT = 7  # Whoever comes waits
text = "# what; what it was"

def _put() -> None:
    """What is put."""
''',
    "twin.pyx": '''cdef extern from *:
    """
    #define what it is
    """

# It sends what was
# missed, and the the rest.
cdef int limit = 7  # Whoever comes waits
cdef str text = "what it was"

cdef put():
    """What is put."""
''',
    "step.lua": """local kept = "what it was"
-- It sends what was
-- missed, and the the rest.
local limit = 7  -- Whoever comes waits
-- What is put.
""",
    "page.ts": """const kept = "what it was";
/**
 * It sends what was
 * missed, and the the rest.
 */
const limit = 7; // Whoever comes waits
/** What is put. */
""",
}


@pytest.mark.parametrize("name", NOTES)
def test_comments_and_docstrings_of_internals_count_and_code_does_not(
    prose: ModuleType, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_text(NOTES[name])
    lines = NOTES[name].splitlines()
    starts = [
        next(at for at, line in enumerate(lines, 1) if word in line) for word in ("It sends", "Whoever", "What is")
    ]
    found = {(line, rule) for line, rule, _, _ in prose.findings_of_notes(path)}
    assert found & {(starts[0], "what"), (starts[1], "who"), (starts[2], "what")} == {
        (starts[0], "what"),
        (starts[1], "who"),
        (starts[2], "what"),
    }
    assert {rule for _, rule in found} == {"what", "who", "doubled"}
    assert len(found) == 4


def test_a_note_may_say_what_now_and_then(prose: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("# It sends what was missed.\n")
    assert list(prose.findings_of_notes(path)) == []


def test_the_notes_of_the_sources_keep_their_rate(prose: ModuleType) -> None:
    found = {str(path.relative_to(ROOT)): list(prose.findings_of_notes(path)) for path in prose.noted()}
    assert {name: told for name, told in found.items() if told} == {}
    assert {Path(name).suffix for name in found} == {".py", ".pyx", ".pxi", ".pxd", ".lua", ".ts"}
    whats, semicolons = prose.rates_of_notes(prose.noted())
    assert 0 < whats <= prose.WHATS
    assert 0 < semicolons <= prose.SEMICOLONS
