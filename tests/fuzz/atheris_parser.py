"""Coverage-guided fuzzing of both parsers: they must agree with each other, and with themselves under any split.

Needs atheris, which has wheels for Linux and some versions of Python only; without it the exit status is 77.
`python -m tests.fuzz.atheris_parser -max_total_time=60 [corpus folder]`: libFuzzer's options apply.
"""

from __future__ import annotations

import importlib
import sys

try:
    atheris = importlib.import_module("atheris")
except ImportError:
    sys.stderr.write("atheris is not installed: pip install atheris\n")
    sys.exit(77)

with atheris.instrument_imports(include=["antiphon.wire"]):
    from antiphon.wire.deflate import Agreement, Deflate, DeflateConfig
    from antiphon.wire.errors import Violation
    from antiphon.wire.frames import Event, Role
    from tests.wire.twins import Twin, native_twin, pure_twin, violation

LIMIT = 1000
CONFIG = DeflateConfig()
TWINS = [twin for twin in (pure_twin(), native_twin()) if twin is not None]


def outcome(
    twin: Twin, stream: bytes, step: int, role: Role, inflates: bool, forgets: bool
) -> tuple[list[Event], Violation | None, bool, int, int]:
    agreement = Agreement(server_no_context_takeover=forgets, client_no_context_takeover=forgets)
    inflater = Deflate(agreement, role, CONFIG) if inflates else None
    parser = twin.parser(role=role, max_message_size=LIMIT, inflater=inflater)
    events: list[Event] = []
    for start in range(0, len(stream), step):
        events += parser.feed(stream[start : start + step])
    return events, violation(parser), parser.closed, parser.frames, parser.buffered


def test_one_input(data: bytes) -> None:
    """The first byte chooses role, compression and split. The rest is the stream."""
    if not data:
        return
    options, stream = data[0], data[1:]
    role = Role.SERVER if options & 1 else Role.CLIENT
    inflates, forgets = bool(options & 2), bool(options & 4)
    step = options >> 3 or 1
    outcomes = [
        outcome(twin, stream, size, role, inflates, forgets) for twin in TWINS for size in (len(stream) or 1, step)
    ]
    for other in outcomes[1:]:
        if other != outcomes[0]:
            raise AssertionError(f"{outcomes[0]} is not {other}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
