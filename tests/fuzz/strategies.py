"""Streams of frames, right and wrong, for hypothesis."""

from __future__ import annotations

import zlib
from itertools import pairwise

from hypothesis import strategies as st

from antiphon.status import may_close_with
from antiphon.wire.deflate import Agreement, DeflateConfig
from tests.wire import raw

close_codes = st.one_of(st.none(), st.integers(1000, 4999).filter(may_close_with))
texts = st.one_of(st.text(max_size=40), st.text(max_size=5).map(lambda text: text * 40))
binaries = st.one_of(st.binary(max_size=40), st.binary(min_size=1, max_size=5).map(lambda data: data * 80))
masks = st.binary(min_size=4, max_size=4)


def deflated(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message in one to four frames, perhaps compressed, with control frames between."""
    text = draw(st.booleans())
    payload = draw(texts).encode() if text else draw(binaries)
    compressed = draw(st.booleans())
    if compressed:
        payload = deflated(payload)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    bounds = [0, *cuts, len(payload)]
    frames = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        first = number == 0
        frames.append(
            raw.frame(
                (1 if text else 2) if first else 0,
                payload[start:stop],
                fin=number == len(cuts),
                rsv=4 if compressed and first else 0,
            )
        )
        if draw(st.integers(0, 4)) == 0:
            frames.append(raw.frame(draw(st.sampled_from([9, 10])), draw(st.binary(max_size=20))))
    return b"".join(frames)


@st.composite
def any_frames(draw: st.DrawFn) -> bytes:
    """One frame in which everything may be wrong."""
    payload = draw(st.one_of(texts.map(str.encode), binaries))
    return raw.frame(
        draw(st.integers(0, 15)),
        payload,
        fin=draw(st.booleans()),
        rsv=draw(st.sampled_from([0, 0, 0, 0, 4, 4, 1, 2, 7])),
        masked=draw(st.sampled_from([True, True, True, True, False])),
        length_bytes=draw(st.sampled_from([None, None, None, 2, 8] if len(payload) < 126 else [None, None, 8])),
    )


@st.composite
def closes(draw: st.DrawFn) -> bytes:
    code = draw(close_codes)
    if code is None:
        return raw.frame(8)
    return raw.frame(8, code.to_bytes(2, "big") + draw(st.text(max_size=20)).encode())


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A stream of frames, most often correct, with some bytes changed, left out or put in now and then."""
    parts = draw(st.lists(st.one_of(messages(), messages(), messages(), any_frames(), closes()), max_size=6))
    data = bytearray(b"".join(parts))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        if not data:
            break
        position = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 2)):
            case 0:
                data[position] = draw(st.integers(0, 255))
            case 1:
                del data[position]
            case _:
                data.insert(position, draw(st.integers(0, 255)))
    return bytes(data)


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces, empty ones among them."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    bounds = [0, *cuts, len(data)]
    return [data[start:stop] for start, stop in pairwise(bounds)]


agreements = st.builds(
    Agreement,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.integers(8, 15),
    client_max_window_bits=st.integers(8, 15),
)

configs = st.builds(
    DeflateConfig,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.integers(8, 15),
    client_max_window_bits=st.integers(8, 15),
    level=st.integers(0, 9),
    memory_level=st.integers(1, 9),
    threshold=st.sampled_from([0, 0, 10, 1000]),
)
