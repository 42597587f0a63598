"""Numbers that several processes add up."""

from __future__ import annotations

import os
from pathlib import Path

from antiphon.observability.ledger import Ledger


def ledger(folder: Path) -> Ledger:
    return Ledger(folder, lambda key: key.startswith("count"))


def totals(asked: Ledger) -> dict[str, list[tuple[bool, float]]]:
    found: dict[str, list[tuple[bool, float]]] = {}
    for lives, values in asked.read():
        for key, value in values.items():
            found.setdefault(key, []).append((lives, value))
    return found


def in_a_child(folder: Path, count: float) -> None:
    """Another process counts, and is gone without a word."""
    child = os.fork()
    if not child:
        other = ledger(folder)
        other.add("count", count)
        other.set("gauge", count)
        os._exit(0)
    os.waitpid(child, 0)


def test_what_a_process_has_counted_outlives_it(tmp_path: Path) -> None:
    own = ledger(tmp_path)
    own.add("count", 1)
    in_a_child(tmp_path, 5)
    assert totals(own)["count"] == [(True, 1.0), (False, 5.0)]
    assert totals(own)["gauge"] == [(False, 5.0)]


def test_the_next_process_goes_on_with_the_counters_and_not_with_the_gauges(tmp_path: Path) -> None:
    for count in (5, 6, 7):
        in_a_child(tmp_path, count)
    assert len([*tmp_path.iterdir()]) == 1
    own = ledger(tmp_path)
    own.add("count", 1)
    assert totals(own) == {"count": [(True, 19.0)], "gauge": [(True, 0.0)]}


def test_two_that_live_never_share_a_file(tmp_path: Path) -> None:
    own, other = ledger(tmp_path), ledger(tmp_path)
    own.add("count", 1)
    other.add("count", 2)
    assert sorted(totals(own)["count"]) == [(True, 1.0), (True, 2.0)]
    child = os.fork()
    if not child:
        own.add("count", 4)  # made before the fork, and yet the child's own
        os._exit(0 if sorted(totals(own)["count"]) == [(True, 1.0), (True, 2.0), (True, 4.0)] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sorted(totals(own)["count"]) == [(False, 4.0), (True, 1.0), (True, 2.0)]


def test_a_file_grows_and_keys_may_be_any_text(tmp_path: Path) -> None:
    own = ledger(tmp_path)
    keys = [f"count {number} {'ä' * (number % 40)}" for number in range(2000)]
    for number, key in enumerate(keys):
        own.add(key, number)
    size = next(tmp_path.iterdir()).stat().st_size
    for _ in range(3):
        for key in keys:
            own.add(key, 1)
    assert next(tmp_path.iterdir()).stat().st_size == size, "what has a place is written there"
    asked = totals(ledger(tmp_path))
    assert {key: asked[key] for key in keys} == {key: [(True, number + 3.0)] for number, key in enumerate(keys)}


def test_a_file_that_is_only_just_being_made_holds_nothing(tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"\x08", bytes(16), b"\xff" * 64)):
        (tmp_path / f"{number}.numbers").write_bytes(content)
    own = ledger(tmp_path)
    own.add("count", 1)
    assert totals(own) == {"count": [(True, 1.0)]}
