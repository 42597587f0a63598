# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The native twin of the pipe; `pipe.py` is the readable one, and says what each name promises.

What differs is how a reader waits. `read()` and `asgi_receive()` return a `Receive`, which ends at once when a message
waits; otherwise it parks a `Waiter` in the pipe, which is all of a future that a task needs. When bytes come, the
reader's task is stepped right there instead of in the loop's next turn (benchmarks: echo-32), unless another task runs.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from antiphon.wire._native cimport Parser, encode_message

import asyncio
from asyncio import CancelledError, InvalidStateError
from collections import deque

from antiphon.wire import Phase, Ping
from antiphon.wire.prepared import encode_compressed

from . import bounds
from .errors import ClientDisconnected
from .state import Opening

try:
    from _asyncio import _current_tasks  # up to CPython 3.13: a dict by loop, quicker than the function
except ImportError:
    _current_tasks = None

cdef extern from *:
    """
    #ifndef _WIN32
    #include <errno.h>
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    static Py_ssize_t antiphon_send(int fd, const char *data, Py_ssize_t size) {
        ssize_t sent;
        do { sent = send(fd, data, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT); } while (sent < 0 && errno == EINTR);
        return sent < 0 ? 0 : (Py_ssize_t)sent;
    }
    #else
    static Py_ssize_t antiphon_send(int fd, const char *data, Py_ssize_t size) { return 0; }
    #endif

    /* Ends an await without making a StopIteration, where CPython asks for this slot (in 3.11: in every await). */
    static int antiphon_set_am_send(PyObject *type, void *function) {
        PyTypeObject *t = (PyTypeObject *)type;
        if (t->tp_as_async == NULL) return 0;
        t->tp_as_async->am_send = (sendfunc)function;
        return 1;
    }
    """
    Py_ssize_t antiphon_send(int fd, const char *data, Py_ssize_t size) noexcept
    int antiphon_set_am_send(object type, void *function) noexcept

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    PyObject *PyDict_GetItemWithError(object mapping, object key) except? NULL

cdef int HANDSHAKE = Opening.HANDSHAKE
cdef int OPEN = Phase.OPEN
cdef int CLOSING = Phase.CLOSING
cdef int GONE = Phase.GONE

cdef enum:
    SEND_RETURN = 0
    SEND_ERROR = -1
    SEND_NEXT = 1

cdef enum:
    READ = 0
    RECEIVE = 1

cdef str TYPE = "type"
cdef str TEXT = "text"
cdef str BYTES = "bytes"
cdef str WEBSOCKET_SEND = "websocket.send"
cdef str WEBSOCKET_RECEIVE = "websocket.receive"
cdef str TWO_READERS = "two tasks receive from one WebSocket at the same time"
cdef dict CURRENT_TASKS = _current_tasks
cdef object PING = Ping

cdef Py_ssize_t LARGEST_KEPT = bounds.LARGEST_KEPT
cdef Py_ssize_t BURST = bounds.BURST
cdef Py_ssize_t OVERHEAD = bounds.OVERHEAD
cdef Py_ssize_t SLICE = bounds.SLICE
cdef Py_ssize_t WORK = bounds.WORK
cdef Py_ssize_t PINGS = bounds.PINGS


include "_waiting.pxi"  # Receive, Waiter, Done: one module with this, so that they call each other as C does
include "_turns.pxi"  # Turns, Flusher


cdef class Pipe:
    """One connection's two directions; an `asyncio.Protocol` as far as data is concerned."""

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
    cdef bint shareable
    cdef public object close_code
    cdef public object close_reason
    cdef public bint connect_taken
    cdef public bint reading_paused
    cdef public bint stopped
    cdef public bint was_paused
    cdef public bint queued
    cdef public bint overfull
    cdef public bint rated
    cdef public bint hoards
    cdef public bint handed
    cdef public bint busy
    cdef public bint dirty
    cdef public bint answers
    cdef public unsigned long long received
    cdef public unsigned long long handed_bytes
    cdef public Py_ssize_t inbox_bytes
    cdef public Py_ssize_t out_bytes
    cdef list _inbox
    cdef Py_ssize_t _head  # what is before it in the inbox has been taken
    cdef Waiter _waiter
    cdef object _out  # None, one frame, or a list of frames
    cdef bytes _chunk  # None, or a chunk, for a later turn or until the app has read;
    cdef Py_ssize_t _at  # what is before it has been parsed
    cdef Py_ssize_t _reads  # without waiting,
    cdef double _reading_since

    def __init__(self, engine):
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

    # ------------------------------------------------------------ from the peer

    def data_received(self, data):
        cdef Py_ssize_t size
        cdef double began
        cdef Turns turns = self.turns
        if self.state != OPEN and self.state != CLOSING:
            self.on_early_data(data)
            return
        if self.parser is None:
            return
        if type(data) is not bytes:
            data = bytes(data)
        if self._chunk is not None or self.queued:
            self.put_by(data)
        elif turns.taken >= NEWS:
            self.put_by(data)
            self.queued = True
            turns.enter(self, True)
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
        """Parse one turn's work of a chunk, let the app have it, send what it says to that."""
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
                    self.flusher.add(self)
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
            self.on_rate(at - start)
        held = parser._size + parser._wire_size
        if held > SLICE or self.hoards:
            self.on_unfinished(held if held > SLICE else 0)
        if self._waiter is not None and not self.queued and (self._inbox is not None or self.close_code is not None):
            self.step_reader()
        if parser.error is not None and self.parser is not None:
            self.on_violation(parser.error)
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
            self.turns.enter(self, False)
        return 0

    @property
    def swollen(self):
        return swollen(self)

    cdef int take_turn(self) except -1:
        """It is this connection's turn. Its reader's, when that has given way, else what was not parsed yet."""
        cdef bytes chunk
        self.queued = False
        if self._waiter is not None and self._inbox is not None:
            self.work_at_reading()
        elif self.parser is None or (self.state != OPEN and self.state != CLOSING):
            self._chunk = None
        elif self._chunk is not None and not self.reading_paused:
            chunk = self._chunk
            self._chunk = None
            self.work_at(chunk, self._at)
        return self.go_on()

    cdef int work_at_reading(self) except -1:
        self.busy = True
        try:
            self.step_reader()
        finally:
            self.busy = False
            if self._out is not None and not self.dirty:
                self.dirty = True
                self.flusher.add(self)
        return 0

    cdef int go_on(self) except -1:
        """Wait for the next turn, or read on."""
        if self.parser is None:
            self._chunk = None
        if self._chunk is None:
            if self.stopped and not self.reading_paused and self.transport is not None:
                self.stopped = False
                if not self.transport.is_closing():
                    self.transport.resume_reading()
        elif not self.reading_paused:
            self.wait()
        return 0

    def parse_rest(self):
        cdef bytes chunk
        while self._chunk is not None and not self.reading_paused and self.parser is not None:
            chunk = self._chunk
            self._chunk = None
            self.work_at(chunk, self._at)

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
                self.on_control(last)
                last = None
            self.on_control(event)
        if last is not None:
            self.on_control(last)
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
            self.on_unread(0)
        if self.reading_paused and self.inbox_bytes * 2 <= self.inbound_limit:
            self.resume_reading()
        if kind == READ:
            return payload
        if type(payload) is str:
            return {TYPE: WEBSOCKET_RECEIVE, TEXT: payload}
        return {TYPE: WEBSOCKET_RECEIVE, BYTES: payload}

    cdef bint has_read_enough(self) except -1:
        """A message is read without waiting: is it the turn of others?"""
        cdef double now = self.turns.clock()
        if not self._reads:
            self._reading_since = now
        self._reads += 1 + (<Py_ssize_t>len(self._inbox[self._head]) >> 10)
        return self._reads > READS or now - self._reading_since > READING

    cdef int note_overfull(self) except -1:
        """The app has to read before the socket is."""
        if not self.reading_paused and self.transport is not None and not self.transport.is_closing():
            self.reading_paused = True
            self.stop_reading()
            self.on_paused()
        self.overfull = True
        self.on_unread(self.inbox_bytes - self.inbound_limit)
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
            self.on_unread(0)

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
        receive.pipe = self
        receive.kind = READ
        return receive

    def asgi_receive(self):
        cdef Receive receive = Receive.__new__(Receive)
        receive.pipe = self
        receive.kind = RECEIVE
        return receive

    # ------------------------------------------------------------ to the peer

    @property
    def alive(self):
        return self.state == OPEN

    @property
    def buffered(self):
        return self.size()

    cdef Py_ssize_t size(self) except -1:
        if self.handed and self.transport is not None:
            return self.out_bytes + <Py_ssize_t>self.transport.get_write_buffer_size()
        return self.out_bytes

    def write(self, payload):
        if self.state != OPEN:
            raise ClientDisconnected("the WebSocket is not open")
        self.answers = True
        self.append(self.frame_of(payload))
        return self.has_room()

    cdef bint has_room(self) except -1:
        if type(self._out) is list and PyList_GET_SIZE(self._out) >= BURST:
            return False
        return self.size() <= self.outbox_limit

    cdef bytes frame_of(self, payload):
        """The frame for a message of our own, or of many connections."""
        cdef Flusher last = self.flusher
        cdef bytes frame
        if self._deflate is None:
            if payload is last.last_payload and last.last_frame is not None:
                return last.last_frame
            frame = encode_message(payload)
        elif self.shareable:
            if payload is last.last_payload and last.last_deflated is not None:
                return last.last_deflated
            frame = encode_compressed(payload, self._deflate)
        else:
            return encode_compressed(payload, self._deflate)
        if (type(payload) is str or type(payload) is bytes) and len(payload) <= LARGEST_KEPT:
            if payload is not last.last_payload:
                last.last_payload = payload
                last.last_frame = last.last_deflated = None
            if self._deflate is None:
                last.last_frame = frame
            else:
                last.last_deflated = frame
        return frame

    def offer(self, message, Py_ssize_t limit):
        cdef bytes frame
        if self.state != OPEN:
            return True
        if self._deflate is None:
            frame = message.frame
            if frame is None:
                frame = message.frame = self.frame_of(message.payload)
        elif self.shareable:
            frame = message.deflated
            if frame is None:
                frame = message.deflated = self.frame_of(message.payload)
        else:
            # Compressing changes the peer's window too: what was compressed must be sent, so ask for room first.
            if not self.takes(most_bytes(message.payload), limit):
                return False
            self.append(encode_compressed(message.payload, self._deflate))
            return True
        if not self.takes(PyBytes_GET_SIZE(frame), limit):
            return False
        self.append(frame)
        return True

    cdef bint takes(self, Py_ssize_t more, Py_ssize_t limit):
        cdef Py_ssize_t size = self.size()
        if size and size + more > limit:
            self.write_out()
            size = self.size()
        return not size or size + more <= limit

    def asgi_send(self, message):
        cdef object payload
        if self.state == OPEN and message[TYPE] == WEBSOCKET_SEND:
            payload = message.get(TEXT)
            if type(payload) is not str:
                payload = payload_of(message)
            self.answers = True
            self.append(self.frame_of(payload))
            return DONE if self.has_room() else self.drain()
        return self.send_rarely(message)

    def drain(self):
        self.write_out()
        if self.state != OPEN:
            raise ClientDisconnected("the WebSocket is not open")
        return self.breathe() if self.size() <= self.outbox_limit else self.drain_slowly()

    def put(self, bytes data):
        self.answers = True
        self.append(data)

    cdef int append(self, bytes data) except -1:
        if self._out is None:
            self._out = data
        elif type(self._out) is list:
            (<list>self._out).append(data)
        else:
            self._out = [self._out, data]
        self.out_bytes += PyBytes_GET_SIZE(data)
        if not self.busy and not self.dirty:
            self.dirty = True
            self.flusher.add(self)
        return 0

    def flush(self):
        self.write_out()

    cdef int write_out(self) except -1:
        cdef object out = self._out
        cdef bytes data
        cdef Py_ssize_t sent, size
        if out is None:
            return 0
        self._out = None
        self.answers = False
        self.out_bytes = 0
        if self.transport is None or self.state == GONE:
            return 0
        data = <bytes>out if type(out) is bytes else b"".join(out)
        if self.fd >= 0 and not self.handed:
            size = PyBytes_GET_SIZE(data)
            sent = antiphon_send(self.fd, PyBytes_AS_STRING(data), size)
            if sent == size:
                return 0
            if sent:
                data = data[sent:]
        self.handed_bytes += PyBytes_GET_SIZE(data)
        self.transport.write(data)
        if not self.handed and self.transport.get_write_buffer_size():
            self.handed = True
            self.on_handed()
        return 0


cdef inline Py_ssize_t cost(object payload) except -1:
    """What a message in the inbox holds of memory, roughly."""
    if type(payload) is str and not payload.isascii():
        return <Py_ssize_t>payload.__sizeof__() + OVERHEAD
    return len(payload) + OVERHEAD


cdef Py_ssize_t most_bytes(payload):
    """The size of the payload's frame at most, without encoding it (RFC 6455 §5.2; UTF-8 has four bytes at most)."""
    return 10 + (len(payload) if isinstance(payload, bytes) or payload.isascii() else 4 * len(payload))


cdef object payload_of(message):
    cdef object text = message.get(TEXT)
    cdef object data
    if text is not None:
        if not isinstance(text, str):
            raise TypeError(f"'text' of a websocket.send message must be str, not {type(text).__name__}")
        return text
    data = message.get(BYTES)
    if data is None:
        raise ValueError("a websocket.send message needs 'text' or 'bytes'")
    return data if isinstance(data, bytes) else bytes(memoryview(data))
