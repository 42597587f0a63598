"""Any bytes, cut anywhere: one answer, from both twins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.wire import Close, Ping, Pong
from antiphon.wire.deflate import Agreement, Deflate, DeflateConfig
from antiphon.wire.errors import Violation
from antiphon.wire.frames import Event, Role
from tests.fuzz.strategies import any_frames, binaries, masks, splits, streams, texts
from tests.search import some
from tests.wire.twins import Twin, native_twin, pure_twin, violation

LIMIT = 300

Outcome = tuple[list[Event], Violation | None, bool, int, int]


def outcome(
    twin: Twin, pieces: list[bytes], *, role: Role, inflates: bool, forgets: bool, work: int | None = None
) -> Outcome:
    agreement = Agreement(server_no_context_takeover=forgets, client_no_context_takeover=forgets)
    inflater = Deflate(agreement, role, DeflateConfig()) if inflates else None
    parser = twin.parser(role=role, max_message_size=LIMIT, inflater=inflater)
    events: list[Event] = []
    for piece in pieces:
        if work is None:
            events += parser.feed(piece)
            continue
        at = 0
        while at < len(piece) or parser.inflating:
            at = parser.feed_some(piece, at, len(piece), work, events)
    return events, violation(parser), parser.closed, parser.frames, parser.buffered


@pytest.fixture(name="twins", scope="module")
def both() -> list[Twin]:
    return [twin for twin in (pure_twin(), native_twin()) if twin is not None]


@pytest.fixture(autouse=True, params=[None, 7], ids=["", "inflating in steps"], scope="module")
def steps(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param is not None:
            patch.setattr("antiphon.wire.deflate.STEP", request.param)
        yield


@given(data=st.data(), inflates=st.booleans(), forgets=st.booleans())
@settings(max_examples=some(80))
def test_any_split_gives_the_same_events_from_both_twins(
    twins: list[Twin], data: st.DataObject, inflates: bool, forgets: bool
) -> None:
    stream = data.draw(streams())
    pieces = data.draw(splits(stream))
    drips = [stream[i : i + 1] for i in range(len(stream))]
    outcomes = [
        outcome(twin, cut, role=Role.SERVER, inflates=inflates, forgets=forgets)
        for twin in twins
        for cut in ([stream], pieces, drips)
    ]
    outcomes += [
        outcome(twin, pieces, role=Role.SERVER, inflates=inflates, forgets=forgets, work=work)
        for twin in twins
        for work in (1, 3)
    ]
    assert all(other == outcomes[0] for other in outcomes)


@given(stream=st.one_of(st.binary(max_size=300), any_frames()), role=st.sampled_from(Role))
@settings(max_examples=some(60))
def test_noise_gives_the_same_outcome_from_both_twins_and_raises_nothing(
    twins: list[Twin], stream: bytes, role: Role
) -> None:
    outcomes = [
        outcome(twin, cut, role=role, inflates=True, forgets=True)
        for twin in twins
        for cut in ([stream], [stream[i : i + 1] for i in range(len(stream))])
    ]
    assert all(other == outcomes[0] for other in outcomes)
    events, error, closed, _, buffered = outcomes[0]
    assert all(isinstance(event, str | bytes | Ping | Pong | Close) for event in events)
    assert buffered <= LIMIT + LIMIT // 4 + 64 + 144
    assert not (error and closed)


@given(payload=st.one_of(texts, binaries), key=st.none() | masks, fin=st.booleans(), rsv1=st.booleans())
def test_both_twins_build_the_same_frames(
    twins: list[Twin], payload: str | bytes, key: bytes | None, fin: bool, rsv1: bool
) -> None:
    opcode = 1 if isinstance(payload, str) else 2
    frames = {twin.encode_frame(opcode, payload, fin=fin, rsv1=rsv1, mask=key) for twin in twins}
    assert len(frames) == 1
    assert len({twin.encode_message(payload) for twin in twins}) == 1


@given(data=st.binary(max_size=10_000), key=masks)
def test_masking_twice_is_nothing_in_both_twins(twins: list[Twin], data: bytes, key: bytes) -> None:
    masked = {twin.mask(data, key) for twin in twins}
    assert len(masked) == 1
    for twin in twins:
        assert twin.mask(masked.copy().pop(), key) == data
