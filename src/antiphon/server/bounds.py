"""How much one turn takes, of a connection and of the loop: the numbers of both twins. Knows nothing else."""

from __future__ import annotations

from typing import Final

# ------------------------------------------------------------ receiving

SLICE: Final = 128 << 10
WORK: Final = 128
"""One turn of a connection parses so many bytes, and so many pieces of work (frames, KiB inflated), of a chunk. Then
the inbox's bound is checked again. A chunk may be tens of thousands of frames, and its compressed messages may inflate
to a thousand times its bytes."""

SHORT: Final = 8
"""The reader may read so many messages in the turn after, which is not counted here. (The pure twin. The native one
steps the reader at once.)"""

PINGS: Final = 16
"""Pings of one turn that are answered each; of those beyond only the last (RFC 6455 §5.5.3)."""

OVERHEAD: Final = 64
"""The cost of a message in the inbox beside its bytes, so that a flood of empty messages is bounded too."""

READS: Final = 256
READING: Final = 0.0005
"""Messages (a large one counts once for each KiB), and seconds, that an app reads without waiting before others have
their turn."""

HELD: Final = 16 << 10
"""So many bytes of a connection that waits for its turn before its socket is read no more."""

# ------------------------------------------------------------ sending

BURST: Final = 256
"""Frames sent in one turn of the loop before their sender lets others run, however much the peer takes."""

LARGEST_KEPT: Final = 1 << 16
"""The payload sent last is kept with its frames, for a loop that sends it to a thousand connections; larger ones are
not."""

WRITES: Final = 64
"""Connections written out in one turn of the loop: some hundred µs of system calls (benchmarks: fanout-64 on
antiphon-hub-relay). Half of them may be receivers of broadcasts when as many answers wait."""

WRITTEN: Final = 4 << 20
"""So many bytes, too: the kernel copies what it takes, some 3 ms."""

LITTLE: Final = 4 << 10
"""Receivers of somebody's message with an outbox below this are written out before those with a larger one."""

BEHIND: Final = 8 << 20
RELIEF: Final = 16
"""While more bytes than that are to be written, a chunk beyond `SMALL` waits for a turn, and so does who reads without
waiting: one message may be thousands to write. One of them has its turn in each `RELIEF` turns of the loop."""

# ------------------------------------------------------------ a turn of the loop

SHARE: Final = 0.001
"""Seconds of one turn of the loop for connections that had more than one turn's work, all together. One of them has its
turn in any case."""

ARRIVALS: Final = 0.004
"""Seconds for which connections with more than one turn's work wait while clients connect in each turn of the loop.
libuv accepts one connection per turn, so that a turn with little work lets the next one in soon."""

NEWS: Final = 0.004
"""Seconds of one turn of the loop for new bytes, all connections together. Later bytes wait, too."""

SETTLED: Final = 0.001
"""Seconds of work after which the loop's turn is looked up: to ask each time would cost more than a message."""

LARGE: Final = 128 << 10
"""So many bytes of a message may be inflated beside those of others. A larger message goes on when those before it are
whole. A hundred that grow together would need room for a hundred."""

CROWD: Final = 64
THRONG: Final = 512
"""With so many waiting for a turn, peers that are gone or have closed lose theirs. An unread socket does not show its
end, and clients that send, close and come again would pile up."""

STEPS: Final = 64
"""Turns of connections in one turn of the loop, for a clock that stands still."""

SAMPLED: Final = 8
SMALL: Final = 512
"""Of chunks up to so many bytes one in `SAMPLED` is timed, for all."""
