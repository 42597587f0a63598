"""The site has every page, the reference every public name, and no link of it is dead."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.commands import ROOT
from tests.public_names import MODULES, public_names


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """scripts/site.py, with a folder of the tests' own for its pages."""
    spec = importlib.util.spec_from_file_location("antiphons_site", ROOT / "scripts" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module)["PAGES"] = tmp_path_factory.mktemp("site") / "pages"
    return module


@pytest.fixture(scope="module")
def laid_out(site: ModuleType) -> ModuleType:
    """The same, with all pages there."""
    site.lay_out()
    return site


def named(navigation: Any) -> list[str]:
    match navigation:
        case str():
            return [navigation]
        case list():
            return [page for one in navigation for page in named(one)]
        case dict():
            return [page for one in navigation.values() for page in named(one)]
    raise AssertionError(navigation)


def test_the_navigation_has_every_page_of_the_documentation_once(laid_out: ModuleType) -> None:
    pages = named(tomllib.loads(laid_out.configuration())["project"]["nav"])
    assert len(pages) == len(set(pages))
    assert [page for page in pages if not (laid_out.PAGES / page).is_file()] == []
    documentation = {str(path.relative_to(laid_out.PAGES)) for path in (laid_out.PAGES / "docs").rglob("*.md")}
    assert documentation <= set(pages)


LEAD_EVERYWHERE = {"docs/index.md", "docs/glossary.md", "docs/benchmarks/README.md"}
"""Pages that are lists themselves."""


@pytest.mark.parametrize(
    "page", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")), ids=lambda page: page
)
def test_a_page_ends_with_the_pages_to_read_next(page: str) -> None:
    last = (ROOT / page).read_text().rstrip().rpartition("\n\n")[2]
    assert page in LEAD_EVERYWHERE or re.search(r"(?:^|[ \n])(?:Next|See also): \[?\w.*\]\(", last, re.DOTALL), last


def test_the_reference_describes_every_public_name_in_one_place(laid_out: ModuleType) -> None:
    described: dict[str, str] = {}
    for module in MODULES:
        page = (laid_out.PAGES / "docs/reference" / f"{module}.md").read_text()
        for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE):
            assert name not in described
            described[name] = module
        mentioned = {*re.findall(r"^::: \S+\.(\w+)$", page, re.M), *re.findall(r"^\| `(\w+)` \|", page, re.M)}
        public = {name.rpartition(".")[2] for name in public_names() if name.rpartition(".")[0] == module}
        assert public - mentioned == set(), module
    assert "antiphon.hub.Hub" in described
    assert "antiphon.Hub" not in described


def test_a_link_to_a_program_leads_to_a_page_that_shows_it(laid_out: ModuleType) -> None:
    page = (laid_out.PAGES / "docs/security.md").read_text()
    assert "](../examples/bearer.py.md)" in page
    assert (ROOT / "examples/bearer.py").read_text() in (laid_out.PAGES / "examples/bearer.py.md").read_text()


def test_each_example_has_a_page_with_its_purpose_its_commands_and_its_tests(laid_out: ModuleType) -> None:
    programs = sorted((ROOT / "examples").glob("*.py"))
    for program in programs:
        page = (laid_out.PAGES / "examples" / f"{program.name}.md").read_text()
        commands = page.partition("~~~~sh\n")[2]
        assert re.search(rf"^antiphon run .*{program.stem}", commands, re.MULTILINE), program
        assert re.search(r"^## Tests\n\n`tests/", page, re.MULTILINE), f"no test runs {program}"
        assert program.read_text() in page
    assert len(programs) > 20


def test_dead_links_are_found_anchors_included(site: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    (folder / "deep").mkdir(parents=True)
    (folder / "index.html").write_text(
        '<h1 id="top">x</h1><a href="deep/page.html#there">1</a><a href="#top">2</a><a href="https://else.where/">3</a>'
    )
    (folder / "deep/page.html").write_text('<p id="there"><a href="../index.html">1</a></p><img src="../picture.png">')
    assert site.dead_links(folder) == ["deep/page.html: ../picture.png is not there"]
    (folder / "picture.png").touch()
    assert site.dead_links(folder) == []
    (folder / "index.html").write_text(
        '<a href="deep/page.html#gone">1</a><a href="#nowhere">2</a><a href="no.html">3</a>'
    )
    assert site.dead_links(folder) == [
        "index.html: #nowhere has no such anchor",
        "index.html: deep/page.html#gone has no such anchor",
        "index.html: no.html is not there",
    ]
