"""The ring of one topic's history, against a plain list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.hub.history import Ring
from antiphon.hub.records import Entry, Keep, Position

steps = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 6)), max_size=40)


@given(steps, st.integers(0, 10), st.integers(0, 50), st.one_of(st.none(), st.integers(0, 8)))
def test_the_ring_holds_what_a_list_would_hold(
    appends: list[tuple[int, int, int]], later: int, offset: int, limit: int | None
) -> None:
    """Each append: seconds since the one before, size of the history, time to live."""
    ring, now = Ring("e"), 0.0
    model: list[tuple[float, Entry]] = []
    for number, (pause, size, ttl) in enumerate(appends, 1):
        now += pause
        entry = ring.append(b"%d" % number, Keep(size, ttl), now)
        model.append((now + ttl, entry))
        model = model[-size:]
    now += later
    while model and model[0][0] <= now:
        model.pop(0)
    kept = [entry for _, entry in model]
    head = len(appends)

    newest = ring.page(None, limit, now)
    assert list(newest.entries) == (kept if limit is None else kept[len(kept) - min(limit, len(kept)) :])
    assert newest.position == Position(head, "e")
    assert not newest.recovered

    page = ring.page(Position(offset, "e"), limit, now)
    missed = [entry for entry in kept if entry.position is not None and entry.position.offset > offset]
    assert page.recovered == (offset <= head and len(missed) == head - offset)
    if not page.recovered:
        assert (list(page.entries), page.position) == ([], Position(head, "e"))
    else:
        expected = missed if limit is None else missed[:limit]
        assert list(page.entries) == expected
        assert page.position == (expected[-1].position if expected else Position(offset, "e"))


@given(st.integers(0, 5))
def test_another_epoch_recovers_nothing(offset: int) -> None:
    ring = Ring("e")
    for _ in range(5):
        ring.append(b"", Keep(10, 10), 0)
    page = ring.page(Position(offset, "f"), None, 0)
    assert not page.recovered
    assert page.entries == ()


def test_going_on_from_a_page_finds_every_entry_once() -> None:
    ring = Ring("e")
    entries = [ring.append(b"%d" % n, Keep(100, 10), 0) for n in range(10)]
    found: list[Entry] = []
    position = Position(0, "e")
    while (page := ring.page(position, 3, 0)).entries:
        found += page.entries
        position = page.position
    assert found == entries
