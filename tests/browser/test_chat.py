"""The chat room of `antiphon demo`, as people in real browsers meet it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.commands import ANTIPHON
from tests.serving import ServedProcess, serve_process

from .cable import Cable

pytestmark = pytest.mark.asyncio(loop_scope="session")

WATCH = """
  const state = document.querySelector("#state-text"), shown = [];
  new MutationObserver(() => {
    shown.push(state.textContent);
    document.documentElement.dataset.shown = shown.join();
  }).observe(state, { childList: true, characterData: true, subtree: true });
"""

CONTRAST, FAINT = (Path(__file__).with_name(name).read_text() for name in ("contrast.js", "faint.js"))


@contextlib.asynccontextmanager
async def demo(*args: str) -> AsyncGenerator[ServedProcess]:
    async with serve_process("demo", *args, command=ANTIPHON) as server:
        yield server
    assert "Traceback" not in server.log, server.log


OF_A_SERVER_THAT_IS_AWAY = ("net::ERR_", "WebSocket connection", "status of 503")
"""Its going is part of some tests. Chromium logs each attempt to reach it, and its answer while it stops."""


class Visitor:
    """One tab of one person, and the complaints of their browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(words in message.text for words in OF_A_SERVER_THAT_IS_AWAY):
            self.complaints.append(message.text)

    async def say(self, text: str) -> None:
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.get_by_label("Message", exact=True).press("Enter")

    def message(self, text: str) -> Locator:
        return self.page.locator(".message:not(.pending) .bubble").get_by_text(text, exact=True)

    def line(self, text: str) -> Locator:
        return self.page.locator(".line").get_by_text(text, exact=True)

    async def watch_state(self) -> None:
        """Keep every text that `state` shows from now on: one that is there for a moment may come between two looks."""
        await self.page.evaluate(WATCH)

    async def showed(self, *texts: str) -> None:
        """Wait until the state has shown these, one right behind the other."""
        await expect(self.page.locator("html")).to_have_attribute("data-shown", re.compile(",".join(texts)))

    @property
    def gap(self) -> Locator:
        return self.page.locator(".gap")

    @property
    def people(self) -> Locator:
        return self.page.locator("#people .person")

    @property
    def state(self) -> Locator:
        return self.page.locator("#state")


async def enter(
    where: Browser | BrowserContext, url: str, name: str | None, room: str = "lobby", **options: object
) -> Visitor:
    """Open a tab: of a new person in a browser, of the same one (name None) in their context."""
    context = await where.new_context(**options) if isinstance(where, Browser) else where  # type: ignore[arg-type]
    visitor = Visitor(await context.new_page())
    await visitor.page.goto(f"{url}/#{room}")
    if name is not None:
        await visitor.page.get_by_label("Your name").fill(name)
        await visitor.page.get_by_role("button", name="Enter").click()
    await expect(visitor.state).to_have_text("Live")
    return visitor


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_two_people_talk_and_one_sees_the_other_killed(browser: Browser, workers: str) -> None:
    async with demo("--workers", workers) as server:
        ada = await enter(browser, server.http_url, "Ada")
        bob = await enter(browser, server.http_url, "Bob")
        await expect(ada.line("Bob joined")).to_be_visible()
        await expect(ada.people).to_have_text(["Ada", "Bob"])
        await ada.say("hello Bob")
        await expect(bob.message("hello Bob")).to_be_visible()
        await bob.say("hello Ada")
        await expect(ada.message("hello Ada")).to_be_visible()
        with contextlib.suppress(Exception):
            await bob.page.goto("chrome://crash")  # kills the tab's process
        await expect(ada.line("Bob left")).to_be_visible()
        await expect(ada.people).to_have_text(["Ada"])
        assert ada.complaints == []


async def test_who_enters_later_reads_what_was_said(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        for number in range(5):
            await ada.say(f"line {number}")
        await expect(ada.message("line 4")).to_be_visible()
        bob = await enter(browser, server.http_url, "Bob")
        await expect(bob.page.locator(".bubble")).to_have_text([f"line {number}" for number in range(5)])
        await expect(bob.page).to_have_title("lobby · antiphon")  # history is not unread


async def test_text_is_never_markup(browser: Browser) -> None:
    evil = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script> <b>bold</b> javascript:alert(1)'
    async with demo() as server:
        ada = await enter(browser, server.http_url, "<b>Ada</b>")
        bob = await enter(browser, server.http_url, "Bob")
        await expect(bob.people).to_have_text(["Bob", "<b>Ada</b>"])
        await ada.say(evil)
        await expect(bob.message(evil)).to_be_visible()
        for visitor in (ada, bob):
            assert await visitor.page.locator("#log img, #log script, #log b, #people b").count() == 0
            assert await visitor.page.evaluate("window.pwned") is None
            assert visitor.complaints == []


async def test_only_web_addresses_become_links(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        await ada.say("see https://example.org/a?b=1. not javascript:alert(1) nor file:///etc/passwd")
        link = ada.page.locator(".bubble a")
        await expect(link).to_have_count(1)
        await expect(link).to_have_attribute("href", "https://example.org/a?b=1")
        await expect(link).to_have_attribute("rel", "noopener noreferrer")


async def test_several_tabs_are_one_person(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        bob = await enter(browser, server.http_url, "Bob")
        second = await enter(ada.page.context, server.http_url, None)
        await expect(second.people).to_have_text(["Ada", "Bob"])
        await ada.say("from the first tab")
        await expect(second.message("from the first tab")).to_be_visible()
        await ada.page.close()
        await bob.say("still here?")
        await expect(second.message("still here?")).to_be_visible()
        await expect(bob.people).to_have_text(["Bob", "Ada"])
        await second.page.close()
        await expect(bob.line("Ada left")).to_be_visible()


async def test_a_cut_connection_comes_back_and_nothing_is_missed_or_doubled(browser: Browser) -> None:
    async with demo() as server, Cable(server.port) as cable:
        ada = await enter(browser, f"http://127.0.0.1:{cable.port}", "Ada")
        bob = await enter(browser, server.http_url, "Bob")
        await bob.say("before")
        await expect(ada.message("before")).to_be_visible()
        await cable.cut()
        await expect(ada.state).to_have_text("Offline")
        await expect(ada.page.get_by_role("alert")).to_contain_text("Trying again")
        await bob.say("meanwhile")
        await expect(bob.message("meanwhile")).to_be_visible()
        await ada.say("said offline")
        await expect(ada.page.locator(".message.pending")).to_have_count(1)
        await expect(ada.page.get_by_role("button", name="Try now")).to_be_visible()
        await cable.mend()
        # Not with the mouse: on a busy machine the page may try by itself before it gets there.
        await ada.page.locator("#retry").evaluate("button => button.click()")
        await expect(ada.state).to_have_text("Live")
        await expect(ada.page.locator(".message.pending")).to_have_count(0)
        await expect(bob.message("said offline")).to_be_visible()
        await expect(bob.page.locator(".bubble")).to_have_text(["before", "meanwhile", "said offline"])
        assert sorted(await ada.page.locator(".bubble").all_text_contents()) == ["before", "meanwhile", "said offline"]
        await expect(ada.page.get_by_role("alert")).to_be_hidden()


async def test_a_restarted_server_is_found_again_by_itself(browser: Browser) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with demo() as server:
            cable = await stack.enter_async_context(Cable(server.port))
            ada = await enter(browser, f"http://127.0.0.1:{cable.port}", "Ada")
            await ada.say("before")
            await expect(ada.message("before")).to_be_visible()
        await expect(ada.state).to_have_text("Offline")
        await expect(ada.page.get_by_role("alert")).to_contain_text("The server is restarting")
        cable.target = (await stack.enter_async_context(demo())).port
        await expect(ada.state).to_have_text("Live")
        await ada.say("after")
        await expect(ada.message("after")).to_be_visible()


async def test_unread_messages_are_counted_in_the_title_and_marked(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada", viewport={"width": 500, "height": 400})
        bob = await enter(browser, server.http_url, "Bob")
        for number in range(6):
            await bob.say(f"long ago {number}\n" + "x\n" * 6)
        await expect(ada.page.locator(".message")).to_have_count(6)
        await ada.page.locator("#scroll").evaluate("element => element.scrollTo(0, 0)")
        await expect(ada.page.locator("#jump")).to_be_visible()
        await bob.page.wait_for_timeout(2500)  # the server takes no more from one person at once
        await bob.say("news")
        await bob.say("more news")
        await expect(ada.page).to_have_title("(2) lobby · antiphon")
        await expect(ada.page.locator(".divider")).to_have_text("New")
        await ada.page.get_by_role("button", name="Go to 2 new messages").click()
        await expect(ada.page).to_have_title("lobby · antiphon")
        await expect(ada.message("more news")).to_be_in_viewport()


async def test_a_page_nobody_looks_at_counts_until_somebody_does(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        bob = await enter(browser, server.http_url, "Bob")
        await ada.page.evaluate("document.hasFocus = () => false")  # a driven page always believes it is looked at
        await bob.say("anybody?")
        await expect(ada.page).to_have_title("(1) lobby · antiphon")
        await expect(ada.page.locator(".divider")).to_have_text("New")
        await ada.page.evaluate("delete document.hasFocus; window.dispatchEvent(new Event('focus'))")
        await expect(ada.page).to_have_title("lobby · antiphon")
        await expect(ada.page.locator(".divider")).to_be_visible()
        await ada.say("yes")
        await expect(ada.page.locator(".divider")).to_have_count(0)


SAY_TWENTY = "box => { for (let n = 0; n < 20; n++) { box.value = `${n}`; box.form.requestSubmit(); } }"


async def test_who_says_much_at_once_is_heard_at_the_pace_of_the_room_and_in_order(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        bob = await enter(browser, server.http_url, "Bob")
        await ada.page.get_by_label("Message", exact=True).evaluate(SAY_TWENTY)
        await expect(ada.page.locator(".message.pending").last).to_be_visible()
        await expect(bob.page.locator(".bubble")).to_have_text([f"{number}" for number in range(20)])
        await expect(ada.page.locator(".message.pending")).to_have_count(0)
        await expect(ada.state).to_have_text("Live")


async def test_rooms_are_apart_and_show_how_many_are_in_them(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        bob = await enter(browser, server.http_url, "Bob", room="music")
        await ada.page.get_by_label("Open another room").fill("The Organ Loft!")
        await ada.page.get_by_label("Open another room").press("Enter")
        await expect(ada.page.get_by_role("heading", level=1)).to_have_text("the-organ-loft")
        await expect(ada.state).to_have_text("Live")
        await ada.say("alone up here")
        await expect(ada.message("alone up here")).to_be_visible()
        await expect(ada.page.locator("[data-room=music] .count")).to_have_text("1")
        await ada.page.locator("[data-room=music]").click()
        await expect(ada.people).to_have_text(["Ada", "Bob"])
        await expect(bob.people).to_have_text(["Bob", "Ada"])
        assert await bob.page.locator(".bubble").count() == 0
        assert ada.page.url.endswith("#music")


async def test_somebody_typing_is_shown(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        bob = await enter(browser, server.http_url, "Bob")
        seen = asyncio.Event()

        async def goes_on_typing() -> None:
            while not seen.is_set():
                await bob.page.get_by_label("Message", exact=True).press_sequentially("hm")

        typing = asyncio.create_task(goes_on_typing())
        await expect(ada.page.locator("#typing")).to_have_text("Bob is typing…")
        seen.set()
        await typing
        await expect(bob.page.locator("#typing")).to_have_text("")
        await bob.say("done")
        await expect(ada.page.locator("#typing")).to_have_text("")


async def test_the_theme_follows_the_system_until_one_is_chosen(browser: Browser) -> None:
    def background(visitor: Visitor) -> Locator:
        return visitor.page.locator("body")

    light, dark = "rgb(250, 248, 244)", "rgb(23, 24, 27)"
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada", color_scheme="dark")
        await expect(background(ada)).to_have_css("background-color", dark)
        await ada.page.emulate_media(color_scheme="light")
        await expect(background(ada)).to_have_css("background-color", light)
        await ada.page.get_by_role("button", name="Theme: as the system").click()
        await ada.page.get_by_role("button", name="Theme: light").click()
        await expect(background(ada)).to_have_css("background-color", dark)
        await ada.page.reload()
        await expect(background(ada)).to_have_css("background-color", dark)


async def test_a_phone_shows_the_room_and_a_drawer(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(
            browser, server.http_url, "Ada", viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True
        )
        await ada.say("w" * 500)
        await expect(ada.page.locator(".message:not(.pending)")).to_have_count(1)
        assert await ada.page.evaluate("document.documentElement.scrollWidth") == 360
        await expect(ada.page.locator("#side")).not_to_be_in_viewport()
        await ada.page.get_by_role("button", name="Rooms and people", exact=True).tap()
        await expect(ada.page.locator("#side")).to_be_in_viewport()
        await ada.page.locator("[data-room=workshop]").tap()
        await expect(ada.page.get_by_role("heading", level=1)).to_have_text("workshop")
        await expect(ada.page.locator("#side")).not_to_be_in_viewport()


async def test_the_keyboard_stays_in_an_open_drawer_and_returns_from_it(browser: Browser) -> None:
    """The room lies behind a veil meanwhile."""
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada", viewport={"width": 360, "height": 640})
        menu = ada.page.get_by_role("button", name="Rooms and people", exact=True)
        await menu.press("Enter")
        await expect(ada.page.locator("[data-room=lobby]")).to_be_focused()
        for _ in range(12):
            await ada.page.keyboard.press("Tab")
            assert await ada.page.evaluate("!document.querySelector('main').contains(document.activeElement)")
        await ada.page.get_by_role("button", name="Change name").press("Enter")
        await expect(ada.page.get_by_label("Your name")).to_be_focused()
        await ada.page.keyboard.press("Escape")
        await expect(ada.page.get_by_role("button", name="Change name")).to_be_focused()
        await ada.page.keyboard.press("Escape")
        await expect(menu).to_be_focused()
        await expect(ada.page.locator("#side")).not_to_be_in_viewport()
        await menu.press("Enter")
        await ada.page.set_viewport_size({"width": 1000, "height": 640})
        await ada.page.get_by_label("Message", exact=True).click()  # nothing is in the way of a window that grows


async def test_who_reads_the_end_stays_there_when_the_room_for_it_shrinks(browser: Browser) -> None:
    async with demo() as server, Cable(server.port) as cable:
        ada = await enter(
            browser, f"http://127.0.0.1:{cable.port}", "Ada", viewport={"width": 360, "height": 500}, is_mobile=True
        )
        for number in range(8):
            await ada.say(f"line {number}")
        await expect(ada.message("line 7")).to_be_in_viewport(ratio=1)
        await cable.cut()  # the notice takes two lines
        await expect(ada.page.get_by_role("alert")).to_be_visible()
        await expect(ada.message("line 7")).to_be_in_viewport(ratio=1)
        await ada.page.get_by_label("Message", exact=True).fill("one\ntwo\nthree")
        await expect(ada.message("line 7")).to_be_in_viewport(ratio=1)


async def test_a_phone_on_its_side_shows_the_whole_door(browser: Browser) -> None:
    async with demo() as server:
        context = await browser.new_context(viewport={"width": 640, "height": 320}, is_mobile=True)
        page = await context.new_page()
        await page.goto(server.http_url)
        await expect(page.get_by_label("Your name")).to_be_in_viewport(ratio=1)
        await expect(page.get_by_role("button", name="Enter")).to_be_in_viewport(ratio=1)


async def test_nobody_is_seen_below_the_end_of_a_long_list_of_people(browser: Browser) -> None:
    async with demo() as server, contextlib.AsyncExitStack() as stack:
        for number in range(30):
            await stack.enter_async_context(connect(f"{server.url}/ws/lobby?name=P{number}", max_queue=None))
        ada = await enter(browser, server.http_url, "Ada", viewport={"width": 1000, "height": 600})
        await expect(ada.people).to_have_count(31)
        footer = await ada.page.locator(".me").bounding_box()
        assert footer is not None
        assert footer["y"] + footer["height"] == 600


async def test_the_room_can_be_used_with_the_keyboard_alone(browser: Browser) -> None:
    async with demo() as server:
        page = await (await browser.new_context()).new_page()
        await page.goto(server.http_url)
        await expect(page.get_by_label("Your name")).to_be_focused()
        await page.keyboard.type("Ada")
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("Message", exact=True)).to_be_focused()
        await page.keyboard.type("two")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("lines")
        await page.keyboard.press("Enter")
        await expect(page.locator(".bubble")).to_have_text("two\nlines", use_inner_text=True)
        assert await page.get_by_role("log").count() == 1
        unnamed = "button, input, textarea"
        names = await page.locator(unnamed).evaluate_all(
            "all => all.filter(one => one.checkVisibility())"
            ".map(one => one.ariaLabel || one.innerText || one.labels?.[0]?.innerText || '')"
        )
        assert all(names), names


async def test_the_keyboard_stays_where_it_was_when_rooms_change(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        await ada.page.locator("[data-room=music]").focus()
        await ada.page.keyboard.press("Enter")
        await expect(ada.page.get_by_role("heading", level=1)).to_have_text("music")
        await expect(ada.page.locator("[data-room=music] .count")).to_have_text("1")  # drawn afresh with its count
        await expect(ada.page.locator("[data-room=music]")).to_be_focused()
        await ada.page.get_by_label("Open another room").fill("loft")
        await ada.page.keyboard.press("Enter")
        await expect(ada.page.get_by_label("Message", exact=True)).to_be_focused()


async def test_a_link_that_cannot_be_copied_is_shown_instead(browser: Browser) -> None:
    """Served without TLS to another machine, a page has no clipboard."""
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        await ada.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        await ada.page.get_by_label("Copy a link to this room").click()
        only_here = "This page opens on this machine only: antiphon demo --host 0.0.0.0 lets friends in"
        await expect(ada.line(only_here)).to_be_visible()
        assert not ada.complaints


async def too_faint(page: Page) -> dict[str, list[Any]]:
    """By theme, the words with too little contrast to their background."""
    found = {}
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        await page.evaluate(CONTRAST)
        found[theme] = await page.evaluate(FAINT)
    return found


async def test_every_word_is_readable(browser: Browser) -> None:
    """WCAG 2.2, 1.4.3 (AA): a contrast of 4.5 to the background, for small text."""
    async with contextlib.AsyncExitStack() as stack:
        async with demo() as server:
            cable = await stack.enter_async_context(Cable(server.port))
            ada = await enter(browser, f"http://127.0.0.1:{cable.port}", "Ada")
            await ada.say("hello")
            await expect(ada.message("hello")).to_be_visible()
        async with demo() as server:  # one that knows nothing of the first
            cable.target = server.port
            await expect(ada.gap).to_be_visible()
            cable.stall()
            await expect(ada.state).to_have_text("No answer")
            assert await too_faint(ada.page) == {"light": [], "dark": []}
        await expect(ada.state).to_have_text("Offline")
        await ada.say("is anybody there?")
        assert await too_faint(ada.page) == {"light": [], "dark": []}


async def test_everything_the_page_loads_is_its_own_and_nothing_is_inline(browser: Browser) -> None:
    async with demo() as server:
        context = await browser.new_context()
        page = await context.new_page()
        loaded: list[str] = []
        page.on("request", lambda request: loaded.append(request.url))
        response = await page.goto(server.http_url)
        assert response is not None
        policy = (await response.all_headers())["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        await page.get_by_label("Your name").wait_for()
        assert all(url.startswith(server.http_url) for url in loaded), loaded
        source = await response.text()
        assert not re.search(r"<[^>]* (style|on\w+)=|<style|<script>", source)


async def test_pages_of_other_sites_are_not_let_in() -> None:
    who = "name=Eve"
    async with demo() as server:
        async with connect(f"{server.url}/ws/lobby?{who}", origin=server.http_url):  # type: ignore[arg-type]
            pass
        address = f"{server.url}/ws/lobby?{who}"
        async with connect(address, origin="https://evil.example") as refused:  # type: ignore[arg-type]
            assert await closed(refused) == 3003


@pytest.mark.parametrize("where", ["lobby", "lobby?name=", "lobby?name=%0a", "Not%20A%20Room?name=Eve"])
async def test_a_name_or_room_that_cannot_be_is_denied(where: str) -> None:
    async with demo() as server, connect(f"{server.url}/ws/{where}") as refused:
        assert await closed(refused) == 1008


async def closed(refused: ClientConnection) -> int | None:
    """The code of a connection that gets nothing else."""
    with pytest.raises(ConnectionClosed):
        await refused.recv()
    return refused.close_code
