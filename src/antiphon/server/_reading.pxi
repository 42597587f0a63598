# From the peer to the app: received bytes that are not parsed yet, the inbox, and whether the socket is read. A part of
# `_pipe.pyx`, in a file of its own to be read by itself. `_reading.py` is the readable twin, and documents each name.

ctypedef unsigned char flag  # a bint of one byte: a connection has sixteen (benchmarks: idle)


cdef class Reading:
    """The receiving half of one connection, and the attributes of both halves."""

    cdef public object owner
    cdef public object watch
    cdef readonly object loop
    cdef readonly Flusher flusher
    cdef readonly Turns turns
    cdef readonly Py_ssize_t inbound_limit
    cdef readonly Py_ssize_t outbox_limit
    cdef public object transport
    cdef public int fd
    cdef public int state
    cdef public Parser parser
    cdef object _deflate
    cdef flag shareable
    cdef public object close_code
    cdef public object close_reason
    cdef public object closed_by
    cdef public object at_stop
    cdef public flag connect_taken
    cdef public flag disconnect_taken
    cdef public flag told
    cdef public flag reading_paused
    cdef public flag stopped
    cdef public flag was_paused
    cdef public flag finished
    cdef public flag queued
    cdef public flag overfull
    cdef public flag rated
    cdef public flag hoards
    cdef public flag handed
    cdef public flag busy
    cdef public flag dirty
    cdef public flag answers
    cdef public unsigned long long received
    cdef public unsigned long long handed_bytes
    cdef public Py_ssize_t inbox_bytes
    cdef public Py_ssize_t out_bytes
    cdef list _inbox
    cdef Py_ssize_t _head  # messages before it in the inbox have been taken
    cdef Waiter _waiter
    cdef object _out  # None, one frame, or a list of frames
    cdef bytes _chunk  # None, or a chunk, for a later turn or until the app has read;
    cdef Py_ssize_t _at  # bytes before it have been parsed
    cdef Py_ssize_t _reads  # without waiting,
    cdef double _reading_since

    def __init__(self, engine, owner):
        self.owner = owner
        self.loop = engine.loop
        self.flusher = engine.flusher
        self.turns = engine.turns
        self.inbound_limit = engine.config.inbound_bytes
        self.outbox_limit = engine.config.outbox_bytes
        self.fd = -1
        self.state = HANDSHAKE
        self.close_reason = ""

    @property
    def deflate(self):
        return self._deflate

    @deflate.setter
    def deflate(self, deflate):
        self._deflate = deflate
        self.shareable = deflate is not None and deflate.shareable

    cdef int write_out(self) except -1:
        raise NotImplementedError  # `_pipe.pyx` has the way out

    # ------------------------------------------------------------ from the peer

    def data_received(self, data):
        cdef Py_ssize_t size
        cdef double began
        cdef Turns turns = self.turns
        if self.state != OPEN and self.state != CLOSING:
            if self.close_code is None:
                self.owner.on_early_data(data)
            return
        if self.parser is None:
            return
        if type(data) is not bytes:
            data = bytes(data)
        if self._chunk is not None or self.queued:
            self.put_by(data)
        elif turns.taken >= NEWS or (self.flusher.is_behind() and PyBytes_GET_SIZE(data) > SMALL):
            self.put_by(data)
            self.queued = True
            turns.enter(<Pipe>self, True)
        else:
            size = PyBytes_GET_SIZE(data)
            began = turns.begin(size)
            self.work_at(data, 0)
            turns.end(began, size)

    cdef int put_by(self, bytes data) except -1:
        """Keep a chunk for this connection's turn."""
        self._chunk = data if self._chunk is None else self._chunk[self._at :] + data
        self._at = 0
        if PyBytes_GET_SIZE(self._chunk) > HELD:
            self.stop_reading()
        return 0

    cdef int work_at(self, bytes data, Py_ssize_t start) except -1:
        """Parse one turn's work of a chunk, let the app have it, send its answers."""
        self.busy = True
        try:
            self.parse(data, start)
        finally:
            self.busy = False
            if self._out is not None and not self.dirty:
                if not self.flusher.scheduled:
                    self.write_out()
                else:
                    self.dirty = True
                    self.flusher.add(<Pipe>self)
        return 0

    cdef int parse(self, bytes data, Py_ssize_t start) except -1:
        cdef Parser parser = self.parser
        cdef list events = []
        cdef Py_ssize_t held, at
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        self.received += 1
        at = parser.feed_some(data, start, min(size, start + SLICE), WORK, events)
        if PyList_GET_SIZE(events):
            self.sort(events)
        if self.rated:
            self.owner.on_rate(at - start)
        held = parser._size + parser._wire_size
        if held > SLICE or self.hoards:
            self.owner.on_unfinished(held if held > SLICE else 0)
        if self._waiter is not None and not self.queued and (self._inbox is not None or self.close_code is not None):
            self.step_reader()
        if parser.error is not None and self.parser is not None:
            self.owner.on_violation(parser.error)
        if self.inbox_bytes > self.inbound_limit:
            self.note_overfull()
        if (at < size or parser.inflating) and self.parser is not None:
            self._chunk = data
            self._at = at
            self.stop_reading()
            if not self.reading_paused:
                self.wait()
        return 0

    cdef int wait(self) except -1:
        if not self.queued:
            self.queued = True
            self.turns.enter(<Pipe>self, False)
        return 0

    @property
    def swollen(self):
        return swollen(self)

    cdef int take_turn(self) except -1:
        """It is this connection's turn: its reader's, if that has given way, else that of unparsed bytes."""
        cdef bytes chunk
        self.queued = False
        if self.may_cause_much() and self.flusher.is_holding():
            return self.wait()
        if self._waiter is not None and self._inbox is not None:
            self.work_at_reading()
        elif self.parser is None or (self.state != OPEN and self.state != CLOSING):
            self._chunk = None
        elif self._chunk is not None and not self.reading_paused:
            chunk = self._chunk
            self._chunk = None
            if self.turns.is_crowded() and self.owner.drop_if_gone():
                return 0
            self.work_at(chunk, self._at)
        return self.go_on()

    cdef bint may_cause_much(self) except -1:
        """Its turn may give the loop more to write than what is small."""
        if self.parser is None:
            return False
        if self._waiter is not None and self._inbox is not None:
            return True
        return self._chunk is not None and PyBytes_GET_SIZE(self._chunk) - self._at > SMALL

    cdef int work_at_reading(self) except -1:
        self.busy = True
        try:
            self.step_reader()
        finally:
            self.busy = False
            if self._out is not None and not self.dirty:
                self.dirty = True
                self.flusher.add(<Pipe>self)
        return 0

    cdef int go_on(self) except -1:
        """Wait for the next turn, or read on."""
        if self.parser is None:
            self._chunk = None
        if self.finished:
            self.end_or_wait()
        elif self._chunk is None:
            if self.stopped and not self.reading_paused and self.transport is not None:
                self.stopped = False
                if not self.transport.is_closing():
                    self.transport.resume_reading()
        elif not self.reading_paused:
            self.wait()
        return 0

    def finish_later(self):
        if self._chunk is not None and self.parser is not None and (self.state == OPEN or self.state == CLOSING):
            self.finished = self.stopped = self.was_paused = True
        return bool(self.finished)

    cdef int end_or_wait(self) except -1:
        if (self.reading_paused or self.overfull) and (self.transport is None or self.transport.is_closing()):
            self._chunk = None
        if self._chunk is not None:
            if not self.reading_paused:
                self.wait()
        elif not self.busy:  # else this turn is not over
            self.finished = False
            self.owner.on_finished()
        return 0

    cdef int sort(self, list events) except -1:
        """Messages into the inbox, the rest to where it is handled."""
        cdef object event
        cdef object last = None  # a ping that came when enough had been answered
        cdef Py_ssize_t pings = 0
        if PyList_GET_SIZE(events) == 1 and self._inbox is None and self.state == OPEN:
            event = events[0]
            if type(event) is str or type(event) is bytes:
                self.inbox_bytes = cost(event)
                self._inbox = events
                self._head = 0
                return 0
        for event in events:
            if type(event) is str or type(event) is bytes:
                if self.state == OPEN:
                    if self._inbox is None:
                        self._inbox = []
                        self._head = 0
                    self._inbox.append(event)
                    self.inbox_bytes += cost(event)
                continue
            if type(event) is PING:
                pings += 1
                if pings > PINGS:
                    last = event
                    continue
            elif last is not None:
                self.owner.on_control(last)
                last = None
            self.owner.on_control(event)
        if last is not None:
            self.owner.on_control(last)
        return 0

    cdef object take(self, int kind):
        """The next message in the form the reader wants; there is one, or the connection is over."""
        cdef object payload
        if kind == RECEIVE and not self.connect_taken:
            self.connect_taken = True
            return {TYPE: "websocket.connect"}
        if self._inbox is None:
            return None if kind == READ else self.take_disconnect()
        payload = self._inbox[self._head]
        self._inbox[self._head] = None
        self._head += 1
        if self._head == PyList_GET_SIZE(self._inbox):
            self._inbox = None
            self.inbox_bytes = 0
        else:
            self.inbox_bytes -= cost(payload)
            if self._head >= 1024 and self._head * 2 >= PyList_GET_SIZE(self._inbox):
                del self._inbox[: self._head]  # an app may be behind for as long as the connection lives
                self._head = 0
        if self.overfull and self.inbox_bytes <= self.inbound_limit:
            self.overfull = False
            self.owner.on_unread(0)
        if self.reading_paused and self.inbox_bytes * 2 <= self.inbound_limit:
            self.resume_reading()
        if kind == READ:
            return payload
        if type(payload) is str:
            return {TYPE: WEBSOCKET_RECEIVE, TEXT: payload}
        return {TYPE: WEBSOCKET_RECEIVE, BYTES: payload}

    cdef dict take_disconnect(self):
        if self.disconnect_taken:
            raise nothing_more()
        self.disconnect_taken = self.told = True
        return {TYPE: "websocket.disconnect", "code": self.close_code, "reason": self.close_reason}

    cdef bint has_read_enough(self) except -1:
        """A message is read without waiting: is it the turn of others?"""
        cdef double now = self.turns.clock()
        if not self._reads:
            self._reading_since = now
        elif self.flusher.is_behind():
            return True
        self._reads += 1 + (<Py_ssize_t>len(self._inbox[self._head]) >> 10)
        return self._reads > READS or now - self._reading_since > READING

    cdef int note_overfull(self) except -1:
        """The app has to read before the socket is."""
        if not self.reading_paused and self.transport is not None and not self.transport.is_closing():
            self.reading_paused = True
            self.stop_reading()
            self.watch.on_paused()
        self.overfull = True
        self.owner.on_unread(self.inbox_bytes - self.inbound_limit)
        return 0

    cdef int stop_reading(self) except -1:
        if not self.stopped and self.transport is not None and not self.transport.is_closing():
            self.stopped = self.was_paused = True
            self.transport.pause_reading()
        return 0

    def resume_reading(self):
        self.reading_paused = False
        self.go_on()

    def forget_inbox(self):
        self._inbox = None
        self.inbox_bytes = 0
        if self.overfull:
            self.overfull = False
            self.owner.on_unread(0)

    cdef int step_reader(self) except -1:
        cdef Waiter waiter = self._waiter
        self._waiter = None
        return waiter.finish(True)

    def wake(self):
        cdef Waiter waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.finish(False)

    def read(self):
        cdef Receive receive = Receive.__new__(Receive)
        receive.pipe = <Pipe>self
        receive.kind = READ
        return receive

    def asgi_receive(self):
        cdef Receive receive = Receive.__new__(Receive)
        receive.pipe = <Pipe>self
        receive.kind = RECEIVE
        return receive


cdef inline Py_ssize_t cost(object payload) except -1:
    """The memory of a message in the inbox, roughly."""
    if type(payload) is str and not payload.isascii():
        return <Py_ssize_t>payload.__sizeof__() + OVERHEAD
    return len(payload) + OVERHEAD
