"""A parcel made for one receiver is there for the next, for a while and up to a size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from antiphon.hub import Framing, Hub, TopicOptions
from antiphon.hub.envelope import Envelope, PayloadForm, pack
from antiphon.hub.message import Parcel
from antiphon.hub.records import Entry, Position
from antiphon.hub.shelf import SHELF_BYTES, SHELF_SECONDS, Shelf
from antiphon.testing import virtual_time
from antiphon.testing.hub_sinks import Connection

EPOCH = "e"


def entry(offset: int, text: str = "") -> Entry:
    return Entry(pack(Envelope(PayloadForm.TEXT, text.encode(), "", "")), Position(offset, EPOCH))


def taken(shelf: Shelf, *entries: Entry, topic: str = "t") -> list[Parcel]:
    return shelf.take(topic, entries, Framing.RAW)


@pytest_asyncio.fixture
async def shelf() -> AsyncGenerator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.clear()


async def test_the_next_receiver_gets_the_same_parcels(shelf: Shelf) -> None:
    first = taken(shelf, entry(1, "a"), entry(2, "b"))
    second = taken(shelf, entry(1, "a"), entry(2, "b"))
    assert [parcel.payload for parcel in first] == ["a", "b"]
    assert all(one is other for one, other in zip(first, second, strict=True))
    (other,) = taken(shelf, entry(1, "another topic's"), topic="u")
    assert other.payload == "another topic's"


async def test_a_run_ends_at_the_first_that_is_missing_and_at_its_size(shelf: Shelf) -> None:
    taken(shelf, *(entry(number) for number in (1, 2, 3, 5)))
    assert len(shelf.run("t", Position(0, EPOCH), 10, 1 << 20)) == 3
    assert len(shelf.run("t", Position(0, EPOCH), 2, 1 << 20)) == 2
    assert len(shelf.run("t", Position(0, EPOCH), 10, 1)) == 1
    assert shelf.run("t", Position(3, EPOCH), 10, 1 << 20) == []
    assert shelf.run("t", Position(0, "another epoch"), 10, 1 << 20) == []


async def test_what_is_no_message_is_known_to_be_none(shelf: Shelf) -> None:
    assert taken(shelf, Entry(b"no envelope", Position(1, EPOCH)), entry(2, "b")) == taken(shelf, entry(2, "b"))
    assert [parcel and parcel.payload for parcel in shelf.run("t", Position(0, EPOCH), 10, 1 << 20)] == [None, "b"]


async def test_a_place_may_name_another_entry_after_the_backend_was_lost(shelf: Shelf) -> None:
    assert [parcel.payload for parcel in taken(shelf, entry(1, "before"))] == ["before"]
    shelf.clear()
    assert [parcel.payload for parcel in taken(shelf, entry(1, "after"))] == ["after"]


async def test_a_hub_that_loses_its_backend_clears_its_shelf() -> None:
    async with Hub(topics={"t": TopicOptions(history=10)}) as hub:
        await hub.publish("t", "hello")
        async with hub.join("t", Connection(), history=1):
            assert len(hub._rooms.shelf) == 1
            hub._rooms.lost()
            assert len(hub._rooms.shelf) == 0


@pytest.mark.parametrize("size", [1 << 12, 1 << 16])
async def test_it_holds_so_many_bytes_and_no_more(shelf: Shelf, size: int) -> None:
    each = 500 + 3 * size
    for number in range(3 * SHELF_BYTES // each):
        taken(shelf, entry(number + 1, "x" * size))
        assert len(shelf) * each <= SHELF_BYTES + each
    assert len(shelf) * each > SHELF_BYTES // 2 - each


@virtual_time
async def test_what_nobody_wants_is_forgotten_and_what_somebody_wants_is_not() -> None:
    shelf = Shelf()
    taken(shelf, entry(1), entry(2))
    for _ in range(5):
        await asyncio.sleep(0.9 * SHELF_SECONDS)
        taken(shelf, entry(1))
    assert len(shelf) == 1
    await asyncio.sleep(2.1 * SHELF_SECONDS)
    assert len(shelf) == 0
