"""The hardships of a page of the chat room: restarts, crashes, links that are dead and say nothing, reloads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.patience import PATIENCE, until
from tests.serving import ServedProcess

from .cable import Cable
from .test_chat import Visitor, demo, enter

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOX = "Message"


async def goes_on_talking(visitor: Visitor, said: list[str]) -> None:
    """`said` has the texts really said, and not one that was on its way into the box when this is cancelled."""
    while True:
        text = f"{len(said)} of {id(visitor)}"
        await visitor.say(text)
        said.append(text)
        await asyncio.sleep(0.8)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_server_that_is_stopped_and_started_under_talking_pages_loses_nothing(
    browser: Browser, tmp_path: Path, workers: str
) -> None:
    options = ("--workers", workers, "--state", str(tmp_path / "chat.state"))
    said: list[str] = []
    async with Cable(0) as cable:
        url = f"http://127.0.0.1:{cable.port}"
        async with demo(*options) as server:
            cable.target = server.port
            people = [await enter(browser, url, "Ada"), await enter(browser, url, "Bob")]
            talking = [asyncio.create_task(goes_on_talking(person, said)) for person in people]
            await until(lambda: len(said) > 5)
        during = len(said)
        async with demo(*options) as server:  # SIGTERM came in between
            cable.target = server.port
            await until(lambda: len(said) > during + 3)
            for person in people:
                await expect(person.state).to_have_text("Live")
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
            for person in people:
                await expect(person.page.locator(".message.pending")).to_have_count(0)
                for text in said:
                    await expect(person.message(text)).to_have_count(1)
                await expect(person.gap).to_have_count(0)
                assert person.complaints == []


async def test_a_page_keeps_what_it_shows_when_the_server_has_lost_it(browser: Browser) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with demo() as server:
            cable = await stack.enter_async_context(Cable(server.port))
            ada = await enter(browser, f"http://127.0.0.1:{cable.port}", "Ada")
            await ada.say("before")
            await expect(ada.message("before")).to_be_visible()
            server.process.kill()
            await server.process.wait()
        cable.target = (await stack.enter_async_context(demo())).port
        await expect(ada.state).to_have_text("Live")
        await expect(ada.message("before")).to_be_visible()
        await expect(ada.gap).to_have_text("The server was restarted. Messages may be missing here.")
        await ada.say("after")
        await expect(ada.message("after")).to_be_visible()
        await expect(ada.page.locator(".log > .message, .log > .gap")).to_have_text(
            [re.compile("before"), re.compile("restarted"), re.compile("after")]
        )
        await cable.cut()
        await cable.mend()
        await expect(ada.state).to_have_text("Live")
        await expect(ada.gap).to_have_count(1)  # this time nothing was missed


def relay_of(server: ServedProcess) -> int:
    """The process id of the relay below this server."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    found = [int(pid) for pid in children if b"relay.process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(found) == 1
    return found[0]


async def test_a_relay_that_dies_leaves_the_page_as_it_is_with_a_divider(browser: Browser) -> None:
    async with demo("--workers", "2") as server:
        ada = await enter(browser, server.http_url, "Ada")
        await ada.say("before")
        await expect(ada.message("before")).to_be_visible()
        os.kill(relay_of(server), 9)
        await expect(ada.gap).to_have_text("The server was restarted. Messages may be missing here.")
        await expect(ada.message("before")).to_be_visible()
        await ada.say("after")
        await expect(ada.message("after")).to_be_visible()


async def test_a_dead_link_is_noticed_within_seconds_and_nothing_said_meanwhile_is_missed(browser: Browser) -> None:
    async with demo() as server, Cable(server.port) as cable:
        ada = await enter(browser, f"http://127.0.0.1:{cable.port}", "Ada")
        bob = await enter(browser, server.http_url, "Bob")
        await asyncio.sleep(12)  # a quiet link is not a dead one
        await expect(ada.state).to_have_text("Live")
        assert not await ada.page.get_by_role("alert").is_visible()
        await ada.watch_state()
        cable.stall()
        stalled = time.monotonic()
        await bob.say("meanwhile")
        await ada.showed("No answer", "Offline")
        noticed = time.monotonic() - stalled
        await expect(ada.page.get_by_role("alert")).to_contain_text("The server did not answer any more.")
        await ada.say("into the void")
        cable.flow()
        await expect(ada.state).to_have_text("Live")
        await expect(ada.message("meanwhile")).to_have_count(1)
        await expect(bob.message("into the void")).to_have_count(1)
        await expect(ada.page.locator(".message.pending")).to_have_count(0)
        assert noticed < PATIENCE / 2, noticed  # two heartbeats of five seconds, on an idle machine


async def test_an_attempt_that_nobody_answers_is_given_up_for_another(browser: Browser) -> None:
    async with demo() as server, Cable(server.port) as cable:
        ada = await enter(browser, f"http://127.0.0.1:{cable.port}", "Ada")
        await ada.watch_state()
        cable.stall()
        await ada.showed("Offline", "Connecting", "Offline")  # an attempt into the silence
        cable.flow()
        await expect(ada.state).to_have_text("Live")


async def test_twelve_lines_typed_offline_all_arrive_in_order(browser: Browser) -> None:
    async with demo() as server, Cable(server.port) as cable:
        ada = await enter(browser, f"http://127.0.0.1:{cable.port}", "Ada")
        bob = await enter(browser, server.http_url, "Bob")
        await cable.cut()
        await expect(ada.state).to_have_text("Offline")
        lines = [f"offline {number}" for number in range(12)]
        for line in lines:
            await ada.say(line)
        await expect(ada.page.locator(".message.pending")).to_have_count(12)
        await cable.mend()
        await expect(bob.page.locator(".bubble")).to_have_text(lines)
        await expect(ada.page.locator(".message.pending")).to_have_count(0)
        await expect(ada.page.locator(".bubble")).to_have_text(lines)


async def test_a_reload_loses_neither_the_line_in_the_box_nor_lines_that_have_not_gone_out(browser: Browser) -> None:
    async with demo() as server, Cable(server.port) as cable:
        ada = await enter(browser, f"http://127.0.0.1:{cable.port}", "Ada")
        bob = await enter(browser, server.http_url, "Bob")
        await bob.say("hello")
        await expect(ada.message("hello")).to_be_visible()
        await cable.cut()
        await expect(ada.state).to_have_text("Offline")
        await ada.say("said offline")
        await ada.page.get_by_label(BOX, exact=True).fill("half a thou")
        await cable.mend()
        await ada.page.reload()
        await expect(ada.state).to_have_text("Live")
        await expect(ada.page.get_by_label(BOX, exact=True)).to_have_value("half a thou")
        await expect(bob.message("said offline")).to_have_count(1)
        await expect(ada.page.locator(".message:not(.pending) .bubble")).to_have_text(["hello", "said offline"])
        await ada.page.get_by_label(BOX, exact=True).press("Enter")
        await expect(bob.message("half a thou")).to_be_visible()
        await ada.page.reload()
        await expect(ada.page.locator(".bubble")).to_have_text(["hello", "said offline", "half a thou"])
        await expect(ada.page.get_by_label(BOX, exact=True)).to_have_value("")


async def test_each_room_keeps_its_own_unsent_line(browser: Browser) -> None:
    async with demo() as server:
        ada = await enter(browser, server.http_url, "Ada")
        await ada.page.get_by_label(BOX, exact=True).fill("for the lobby")
        await ada.page.locator("[data-room=music]").click()
        await expect(ada.page.get_by_label(BOX, exact=True)).to_have_value("")
        await ada.page.locator("[data-room=lobby]").click()
        await expect(ada.page.get_by_label(BOX, exact=True)).to_have_value("for the lobby")


async def test_a_link_for_a_friend_has_an_address_that_the_friend_can_open(browser: Browser) -> None:
    async with demo("--host", "0.0.0.0") as server:
        match = re.search(r"send a friend (http://\S+)", server.log)
        assert match
        assert "localhost" not in match[1]
        ada = await enter(browser, server.http_url, "Ada")
        await ada.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        await ada.page.get_by_label("Copy a link to this room").click()
        await expect(ada.line(f"Send this link to a friend: {match[1]}/#lobby")).to_be_visible()
        friend = await enter(browser, match[1], "Friend")
        await expect(friend.people).to_have_text(["Friend", "Ada"])
