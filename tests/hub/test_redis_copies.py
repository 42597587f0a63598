"""Rosters kept true by changes that have no gaps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from antiphon.hub.backends.redis.copies import Copies
from antiphon.hub.records import Change, Roster

ANN = {"ann": (b"1",)}


def kept(version: int = 5, came: Iterable[Change] = ()) -> Copies:
    copies = Copies()
    copies.hear("t")
    copies.keep("t", Roster(version, ANN), came)
    return copies


async def test_changes_without_a_gap_keep_a_copy_true() -> None:
    copies = kept()
    copies.change("t", Change(6, "bob", (b"2",), more=3))
    copies.change("t", Change(7, "ann", ()))
    copies.change("t", Change(7, "told", (b"twice",)))
    assert await copies.reached("t", 7) == Roster(7, {"bob": (b"2",)}, {"bob": 3})
    copies.change("t", Change(8, "bob", (b"2",)))
    assert await copies.reached("t", 7) == Roster(8, {"bob": (b"2",)}, {})


async def test_a_gap_ends_a_copy_until_the_next_roster() -> None:
    copies = kept()
    waiting = asyncio.create_task(copies.reached("t", 8))
    await asyncio.sleep(0)
    copies.change("t", Change(7, "bob", (b"2",)))
    assert await waiting is None
    assert copies.version("t") is None
    copies.keep("t", Roster(7, {"bob": (b"2",)}), [])
    assert copies.version("t") == 7


async def test_who_waits_is_answered_as_soon_as_its_change_was_heard() -> None:
    copies = kept()
    waiting = [asyncio.create_task(copies.reached("t", version)) for version in (5, 6, 7)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    copies.change("t", Change(6, "bob", (b"2",)))
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, True, False]
    copies.forget("t")
    assert await waiting[2] is None


async def test_what_came_while_the_roster_was_on_its_way_is_added_to_it() -> None:
    copies = Copies()
    copies.hear("t")
    with copies.asking("t") as came, copies.asking("t") as other:
        copies.change("t", Change(4, "in", (b"it",)))
        copies.change("t", Change(6, "bob", (b"2",)))
        copies.keep("t", Roster(5, ANN), [Change(4, "in", ()), *came[1:]])
    assert came == other
    assert copies.version("t") == 6
    copies.change("t", Change(7, "cem", (b"3",)))
    assert len(came) == 2
    assert await copies.reached("t", 7) == Roster(7, ANN | {"bob": (b"2",), "cem": (b"3",)})


async def test_what_came_with_a_gap_leaves_no_copy() -> None:
    copies = kept(came=[Change(6, "bob", (b"2",)), Change(8, "cem", (b"3",))])
    assert copies.version("t") is None


async def test_of_a_topic_that_is_not_heard_there_is_no_copy() -> None:
    copies = Copies()
    copies.keep("t", Roster(5, ANN), [])
    assert copies.version("t") is None
    assert await copies.reached("t", 5) is None
    copies = kept()
    copies.restart_all()
    assert copies.version("t") is None
    copies = kept()
    copies.clear()
    copies.keep("t", Roster(6, ANN), [])
    assert copies.version("t") is None
