"""How much one turn takes, of a connection and of the loop: the numbers of both twins. Knows nothing else."""

from __future__ import annotations

from typing import Final

# ------------------------------------------------------------ what is received

SLICE: Final = 128 << 10
WORK: Final = 128
"""So many bytes, and pieces of work (frames, KiB inflated), of a chunk are parsed in one turn of a connection, and
before the inbox's bound is looked at again: a chunk may be tens of thousands of frames, and of compressed messages it
holds a thousand times its bytes."""

SHORT: Final = 8
"""So many messages the reader may read in the turn after, which is not counted here. (The pure twin; the native one
steps the reader at once.)"""

PINGS: Final = 16
"""Pings of one turn that are answered each; of those beyond only the last (RFC 6455 §5.5.3)."""

OVERHEAD: Final = 64
"""What a message in the inbox costs beside its bytes, so that a flood of empty messages is bounded too."""

READS: Final = 256
READING: Final = 0.0005
"""Messages (a large one counts once for each KiB), and seconds, that an app reads without waiting before others have
their turn."""

HELD: Final = 16 << 10
"""So many bytes of a connection that waits for its turn before its socket is read no more."""

# ------------------------------------------------------------ what is sent

BURST: Final = 256
"""Frames sent in one turn of the loop before their sender lets others run, however much the peer takes."""

LARGEST_KEPT: Final = 1 << 16
"""The payload sent last is kept with its frames, for a loop that sends it to a thousand connections; larger ones are
not."""

WRITES: Final = 64
"""Connections written out in one turn of the loop: some hundred µs of system calls (benchmarks: fanout-64 on
antiphon-hub-relay). And half as many that hear what somebody told all, when there are as many answers."""

# ------------------------------------------------------------ a turn of the loop

SHARE: Final = 0.001
"""Seconds of one turn of the loop for connections that had more than one turn's work, all together; one of them has its
turn in any case."""

ARRIVALS: Final = 0.004
"""Seconds for which connections with more than one turn's work wait while somebody connects in each turn of the loop.
libuv accepts one connection in each, so that a turn with little work lets the next one in soon."""

NEWS: Final = 0.004
"""Seconds of one turn of the loop for what has just come, all connections together; what comes then waits, too."""

SETTLED: Final = 0.001
"""Seconds of work after which it is found out when the loop turns: to ask each time would cost more than a message."""

LARGE: Final = 128 << 10
"""So many bytes of a message may be inflated beside those of others; what is larger goes on when those before it are
whole. A hundred that grow together would need room for a hundred."""

CROWD: Final = 64
THRONG: Final = 512
"""So many wait for a turn that peers which are gone, and those which have closed, lose theirs. An unread socket does
not tell of its end, and clients that send, close and come again would be more and more."""

STEPS: Final = 64
"""Turns of connections in one turn of the loop, for a clock that stands still."""

SAMPLED: Final = 8
SMALL: Final = 512
"""Of chunks up to so many bytes one in `SAMPLED` is timed, for all."""
