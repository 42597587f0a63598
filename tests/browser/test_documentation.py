"""The built site, as Lighthouse would judge it: accessible in both schemes, on a phone, by keyboard and by search."""

from __future__ import annotations

import functools
import hashlib
import html
import http.server
import itertools
import json
import re
import shutil
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, expect

from tests.built import CACHE, built, step
from tests.commands import ROOT
from tests.error_texts import error_texts
from tests.node import tools

pytestmark = pytest.mark.timeout(900)  # the first test builds the site and its tools; the others wait

PAGES = (
    "index.html",
    "docs/tutorial/2-chat.html",
    "docs/howto/observe.html",
    "docs/security.html",
    "docs/errors/running.html",
    "docs/reference/antiphon.html",
    "docs/deploying/capacity.html",
    "docs/benchmarks/index.html",
    "examples/index.html",
)
RULES: dict[Literal["light", "dark"], dict[str, object]] = {
    "light": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]},
    "dark": {"type": "rule", "values": ["color-contrast"]},  # all else is the same in both
}
IN_THE_DARK = frozenset(
    {"index.html", "docs/security.html", "docs/reference/antiphon.html", "docs/deploying/capacity.html"}
)
"""One page of each kind: the scheme is the theme's, and colours of text are the dearest that axe looks at."""
# A page's answer is short: all findings of axe on a long page take seconds to transfer.
AXE = """async (rules) => {
    const found = await axe.run(document, { runOnly: rules, resultTypes: ["violations"] });
    return [found.violations.map(({ id, nodes }) => [id, nodes[0].html]), found.passes.length];
}"""
MADE_FROM = (
    "*.md",
    "*.toml",
    "docs/**/*",
    "examples/**/*",
    "src/**/*.py",
    "src/**/*.md",
    "benchmarks/*.md",
    "tests/*.md",
    "scripts/site.py",
)


@pytest.fixture(scope="session")
def site() -> Path:
    """`make docs`, once for these sources."""
    files = sorted({path for pattern in MADE_FROM for path in ROOT.glob(pattern) if path.is_file()})
    digest = hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()

    def build(folder: Path) -> None:
        step(ROOT / "scripts" / "docs.sh")
        shutil.copytree(CACHE / "docs" / "site", folder / "site")

    return built(CACHE / "documentation", digest, build) / "site"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.asyncio(loop_scope="session")
async def test_axe_finds_nothing_in_either_scheme(browser: Browser, address: str, path: str) -> None:
    axe = (tools() / "axe-core" / "axe.min.js").read_text()
    backgrounds = []
    for scheme, rules in RULES.items():
        if scheme == "dark" and path not in IN_THE_DARK:
            continue
        page = await (await browser.new_context(color_scheme=scheme)).new_page()  # a page keeps its first scheme
        await page.goto(f"{address}/{path}")
        await page.evaluate(axe)
        violations, passes = await page.evaluate(AXE, rules)
        assert violations == [], scheme
        assert passes == 1 if scheme == "dark" else passes > 10
        backgrounds.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert len(set(backgrounds)) == len(backgrounds)


@pytest.mark.asyncio(loop_scope="session")
async def test_every_page_fits_a_phone_and_all_its_text_can_be_read_in_either_scheme(
    browser: Browser, site: Path, address: str
) -> None:
    given = articles(site)
    given["wide"] = '<article><hr style="width: 400px"></article>'
    given["faint"] = '<article><p class="faint" style="color: #888">hm</p></article>'
    given["dim"] = '<article><p class="dim" style="color: #555">hm</p></article>'
    page = await (await browser.new_context(viewport={"width": 390, "height": 844})).new_page()
    await page.goto(f"{address}/index.html")
    await page.evaluate((ROOT / "tests/browser/contrast.js").read_text())
    found = await page.evaluate((ROOT / "tests/browser/every_page.js").read_text(), given)
    assert [fault.rpartition(":")[0] for fault in found["faults"]] == [
        "wide",
        "faint: contrast 3.54 in default",
        "dim: contrast 2.62 in slate",
    ]
    assert found["kinds"] > 200


def articles(site: Path) -> dict[str, str]:
    """By page, without pictures: the theme bounds their width, and each would be fetched."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        [article] = re.findall("<article.*</article>", path.read_text(), re.DOTALL)
        found[str(path.relative_to(site))] = re.sub("<img[^>]*>", "", article)
    return found


@pytest.mark.asyncio(loop_scope="session")
async def test_the_keyboard_scrolls_a_table_that_is_too_wide_and_no_other(browser: Browser, address: str) -> None:
    page = await (await browser.new_context(viewport={"width": 390, "height": 844})).new_page()
    await page.goto(f"{address}/docs/hub.html")
    wide = page.locator("article [tabindex='0']:has(table)")
    await expect(wide).not_to_have_count(0)
    await wide.first.focus()
    await page.keyboard.press("ArrowRight")
    await page.wait_for_function("document.activeElement.scrollLeft > 0")
    await page.set_viewport_size({"width": 1600, "height": 844})
    await expect(wide).to_have_count(0)


@pytest.mark.asyncio(loop_scope="session")
async def test_the_keyboard_reaches_the_content_and_the_search(browser: Browser, address: str) -> None:
    page = await (await browser.new_context()).new_page()
    await page.goto(f"{address}/docs/security.html")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.closest('main') !== null")
    await page.keyboard.press("/")
    await expect(page.get_by_role("combobox", name="Search")).to_be_focused()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("add_middleware takes a class, called with the app, got", "docs/errors/registration.html"),
        ("is neither the URL of a hub nor an app", "docs/errors/command-line.html"),
        ("this membership was never entered, and joined nothing: use `async with`", "docs/errors/running.html"),
        ("no room for messages that wait unread", "docs/errors/close-codes.html"),
    ],
)
@pytest.mark.asyncio(loop_scope="session")
async def test_search_finds_an_error_by_its_text(browser: Browser, address: str, text: str, found: str) -> None:
    page = await (await browser.new_context()).new_page()
    await page.goto(f"{address}/index.html")
    await page.get_by_role("button", name="Search").click()
    await page.get_by_role("combobox", name="Search").fill(text)
    await expect(page.locator(f'[role=option][href*="{found}"]').first).to_be_attached()


def test_the_search_has_every_word_of_an_error_and_every_close_code_in_one_place(site: Path) -> None:
    """It looks for sections with all words of a query, and the values in a message are the reader's own."""
    index = json.loads((site / "search.json").read_text())
    separator = re.compile(index["config"]["separator"])

    def words(text: str) -> set[str]:
        return {word.lower() for word in separator.split(text) if word}

    items = [one for one in index["items"] if one["location"].startswith("docs/errors/")]
    sections = [words(html.unescape(re.sub("<[^>]*>", " ", f"{one['title']} {one['text']}"))) for one in items]
    codes = re.findall(r"^\| (\d{4}) \|", (ROOT / "docs/errors/close-codes.md").read_text(), re.MULTILINE)
    assert len(codes) > 10
    wanted = {text: words(text.replace("…", " ")) for text in (*error_texts(), *codes)}
    assert [text for text, asked in wanted.items() if not any(asked <= one for one in sections)] == []


class Head(HTMLParser):
    """The parts of a page that search engines and screen readers begin with."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def attribute(self, tag: str, attribute: str, **like: str) -> list[str | None]:
        return [given.get(attribute) for one, given in self.tags if one == tag and given.items() >= like.items()]


@pytest.fixture(scope="module")
def heads(site: Path) -> dict[Path, Head]:
    return {path: Head(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_every_page_has_a_language_a_title_of_its_own_a_description_and_one_main_part(
    heads: dict[Path, Head],
) -> None:
    titles: dict[str, Path] = {}
    for path, head in heads.items():
        text = path.read_text()
        [title] = re.findall(r"<title>(.*?)</title>", text)
        assert title not in titles, f"{path} and {titles[title]}: {title}"
        titles[title] = path
        assert head.attribute("html", "lang") == ["en"], path
        [description] = head.attribute("meta", "content", name="description")
        assert description is not None, path
        assert 20 < len(description) < 300, f"{path}: {description}"
        assert len(head.attribute("main", "class")) == len(re.findall(r"<h1\b", text)) == 1, path
        assert all(head.attribute("img", "alt")), path
    assert len(titles) > 100


def test_no_page_skips_a_level_of_headings_or_has_an_anchor_twice(heads: dict[Path, Head]) -> None:
    for path, head in heads.items():
        levels = [int(tag[1]) for tag, _ in head.tags if re.fullmatch("h[1-6]", tag)]
        steps = list(itertools.pairwise(levels))
        assert all(next <= before + 1 for before, next in steps), f"{path}: {levels}"
        ids = [str(given["id"]) for _, given in head.tags if given.get("id")]
        assert len(ids) == len(set(ids)), f"{path}: {sorted({one for one in ids if ids.count(one) > 1})}"
