# The order of turns: `Turns` for receiving, `Flusher` for sending. A part of `_pipe.pyx`, in a file of its own to be
# read by itself. `_turns.py` is the readable twin, and documents each name.

cdef Py_ssize_t WRITES = bounds.WRITES
cdef Py_ssize_t WRITTEN = bounds.WRITTEN
cdef Py_ssize_t LITTLE = bounds.LITTLE
cdef Py_ssize_t BEHIND = bounds.BEHIND
cdef unsigned int RELIEF = bounds.RELIEF
cdef Py_ssize_t READS = bounds.READS
cdef double READING = bounds.READING
cdef double SHARE = bounds.SHARE
cdef double ARRIVALS = bounds.ARRIVALS
cdef double NEWS = bounds.NEWS
cdef double SETTLED = bounds.SETTLED
cdef Py_ssize_t LARGE = bounds.LARGE
cdef Py_ssize_t STEPS = bounds.STEPS
cdef Py_ssize_t CROWD = bounds.CROWD
cdef Py_ssize_t THRONG = bounds.THRONG
cdef unsigned int SAMPLED = bounds.SAMPLED
cdef Py_ssize_t SMALL = bounds.SMALL
cdef Py_ssize_t HELD = bounds.HELD


@cython.final
cdef class Turns:
    """The turns: connections with more work than fits into one turn go one after the other."""

    cdef object loop
    cdef object clock
    cdef object run
    cdef object late  # deques of pipes
    cdef object waiting
    cdef object swollen
    cdef Pipe first  # of the swollen, the one whose turn it is
    cdef bint scheduled
    cdef unsigned int small
    cdef bint arrived  # somebody new has connected, since the loop turned
    cdef double shared  # when those who wait had their share last
    cdef double taken  # seconds on news, since the loop turned, or somewhat longer

    def __init__(self, loop, clock):
        self.loop = loop
        self.clock = clock
        self.run = self._run
        self.late = deque()
        self.waiting = deque()
        self.swollen = deque()

    @property
    def spent(self):
        return self.taken >= NEWS

    @property
    def crowded(self):
        return self.is_crowded()

    @property
    def thronged(self):
        return len(self.waiting) > THRONG

    cdef bint is_crowded(self):
        return len(self.waiting) > CROWD

    cdef double begin(self, Py_ssize_t size) except? -2.0:
        if size <= SMALL:
            self.small += 1
            if self.small % SAMPLED:
                return -1.0
        return self.clock()

    cdef int end(self, double began, Py_ssize_t size) except -1:
        cdef double took
        if began >= 0.0:
            took = <double>self.clock() - began
            self.taken += took * SAMPLED if size <= SMALL else took
            if self.taken >= SETTLED:
                self.schedule()
        return 0

    cdef int enter(self, Pipe pipe, bint late) except -1:
        if late or not swollen(pipe):
            (self.late if late else self.waiting).append(pipe)
        elif pipe is self.first:
            self.swollen.appendleft(pipe)
        else:
            self.swollen.append(pipe)
        self.schedule()
        return 0

    cdef int schedule(self) except -1:
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self.run)
        return 0

    def arrival(self):
        self.arrived = True

    def _run(self):
        cdef double now = self.clock()
        cdef double until = now + SHARE
        cdef object late = self.late
        cdef Py_ssize_t left = STEPS
        while late and left and (left == STEPS or <double>self.clock() < until):
            left -= 1
            self.give_turn(late.popleft())
        if self.arrived and now < self.shared + ARRIVALS:
            self.arrived = False
        else:
            self.share(left, until)
        self.scheduled = False
        self.taken = 0.0
        if late or self.waiting or self.swollen:
            self.schedule()

    cdef int share(self, Py_ssize_t left, double until) except -1:
        cdef object waiting = self.waiting
        if waiting:
            self.give_turn(waiting.popleft())
        if self.swollen:
            self.inflate()
        while (waiting or self.swollen) and left and <double>self.clock() < until:
            left -= 1
            if waiting:
                self.give_turn(waiting.popleft())
            else:
                self.inflate()
        self.arrived = False
        self.shared = self.clock()
        return 0

    cdef int inflate(self) except -1:
        self.first = self.swollen.popleft()
        self.give_turn(self.first)
        self.first = None
        return 0

    cdef int give_turn(self, Pipe pipe) except -1:
        try:
            pipe.take_turn()
        except Exception as error:  # a transport's bug stays with its own connection
            self.loop.call_exception_handler({"message": "reading a WebSocket failed", "exception": error})
        return 0


cdef inline bint swollen(Pipe pipe):
    """Its work is to inflate more of a message that is `LARGE` already."""
    cdef Parser parser = pipe.parser
    if parser is None or not parser.inflating or parser._size < LARGE:
        return False
    return pipe._waiter is None or pipe._inbox is None  # else its reader's turn comes first


@cython.final
cdef class Flusher:
    """Writes out every pipe that has put something into its outbox: `WRITES` of them, or `WRITTEN` bytes, per turn of
    the loop.

    Between two turns the loop reads: messages that come for a pipe before its turn leave in the same write. Answers
    first, large outboxes last.
    """

    cdef object loop
    cdef object run
    cdef object answers  # a deque
    cdef list marked
    cdef list turn
    cdef object large  # a deque
    cdef bint scheduled
    cdef unsigned int turns
    cdef bint relief
    cdef readonly Py_ssize_t owed  # bytes in all outboxes, as the pipes count them
    cdef object done  # a future that is done
    cdef object last_payload  # the one sent last, by identity, and its frames: a loop that sends one str to a thousand
    cdef bytes last_frame  # connections encodes and compresses it once. A large one is not kept alive for that.
    cdef bytes last_deflated

    def __init__(self, loop):
        self.loop = loop
        self.done = loop.create_future()
        self.done.set_result(None)
        self.run = self._run
        self.answers = deque()
        self.marked = []
        self.turn = []
        self.large = deque()

    @property
    def idle(self):
        return not self.scheduled

    @property
    def behind(self):
        return self.is_behind()

    def holds_up(self):
        return self.is_holding()

    cdef inline bint is_behind(self):
        return self.scheduled and self.owed > BEHIND

    cdef bint is_holding(self):
        if not self.is_behind():
            return False
        if self.relief:
            self.relief = False
            return False
        return True

    cdef int add(self, Pipe pipe) except -1:
        if pipe.answers:
            self.answers.append(pipe)
        elif pipe.out_bytes < LITTLE:
            self.marked.append(pipe)
        else:
            self.large.append(pipe)
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self.run)
        return 0

    def mark(self, Pipe pipe):
        self.add(pipe)

    def _run(self):
        cdef list turn = self.turn
        cdef object answers = self.answers
        cdef object large = self.large
        cdef Py_ssize_t left = min(<Py_ssize_t>len(answers), WRITES)
        cdef Py_ssize_t others = max(WRITES - left, WRITES // 2)
        cdef Py_ssize_t room = WRITTEN
        self.turns += 1
        if self.turns % RELIEF == 0:
            self.relief = True
        while left and room > 0:
            left -= 1
            room -= self.write_out(answers.popleft())
        room = max(room, WRITTEN // 2)
        if not turn:
            turn = self.turn = self.marked
            self.marked = []
            turn.reverse()
        while turn and others and room > 0:
            others -= 1
            room -= self.write_out(turn.pop())
        others = max(others, WRITES // 4)
        room = max(room, WRITTEN // 4)
        while large and others and room > 0:
            others -= 1
            room -= self.write_out(large.popleft())
        self.scheduled = bool(answers or turn or self.marked or large)
        if self.scheduled:
            self.loop.call_soon(self.run)

    cdef Py_ssize_t write_out(self, Pipe pipe) except -1:
        cdef Py_ssize_t size = pipe.out_bytes
        pipe.dirty = False
        try:
            pipe.write_out()
        except Exception as error:  # a transport's bug stays with its own connection
            self.loop.call_exception_handler({"message": "flushing a WebSocket failed", "exception": error})
        return size
