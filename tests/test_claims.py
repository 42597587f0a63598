"""Claims of comments and documents about the code hold: benchmarks they name, tables they show, pages they cite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.types import Carrier, Sink
from tests.commands import ROOT

SOURCES = sorted(path for ending in ("py", "pyx", "pxi", "pyi") for path in ROOT.glob(f"src/**/*.{ending}"))


def names(file: str) -> set[str]:
    return set(re.findall(r'\bname="([\w-]+)"', (ROOT / "benchmarks" / file).read_text()))


def citations() -> Iterator[tuple[Path, str]]:
    """Each word about benchmarks in the sources, with the text behind it."""
    for path in SOURCES:
        for found in re.finditer(r"[Bb]enchmark.{0,60}", path.read_text()):
            yield path, found.group()


def test_a_benchmark_that_a_comment_names_is_one() -> None:
    workloads, peers = names("workloads.py"), names("peers.py")
    cited = 0
    for path, words in citations():
        file = re.match(r"benchmarks/(\w+\.py)\b", words)
        workload = re.match(r"benchmarks: ([\w-]+)(?: on ([\w-]+))?\b", words)
        where = f"{path.relative_to(ROOT)}: {words!r}"
        assert file or workload, f"{where}: say `benchmarks: WORKLOAD`, `… on PEER` or `benchmarks/FILE.py`"
        if file:
            assert (ROOT / "benchmarks" / file[1]).exists(), where
        if workload:
            assert workload[1] in workloads, where
            assert workload[2] is None or workload[2] in peers, where
        cited += 1
    assert cited > 5


def test_a_carrier_is_a_sink() -> None:
    assert Sink in Carrier.__mro__


@pytest.mark.parametrize("folder", ["src", "tests", "docs", "examples", "benchmarks"])
def test_nothing_cites_a_page_that_is_not_in_the_repository(folder: str) -> None:
    here = Path(__file__)
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in {".py", ".pyx", ".pxi", ".md", ".sh"} and path != here and "programs" not in path.parts:
            assert not re.search(r"\bSPEC §", path.read_text()), path


def test_a_target_that_a_document_tells_to_make_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("src/**/*.md"),
    ]:
        told = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert told <= targets, f"{page.name}: {told - targets}"


def test_the_sources_name_no_package_to_install_that_an_index_may_not_have() -> None:
    """antiphon is installed from a checkout: `pip install antiphon` might bring anything."""
    for path in [*SOURCES, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        assert "pip install antiphon" not in path.read_text(), path
