# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The native twin of the channel; `_pure.py` is the readable one, and says what each name promises.

What differs is how a reader waits. `read()` and `asgi_receive()` return a `Receive`, which ends at once when a message
waits; otherwise it parks a `Waiter` in the channel, which is all of a future that a task needs. When bytes come, the
reader's task is stepped right there instead of in the loop's next turn (benchmarks: echo), unless another task runs.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from antiphon.wire._native cimport Parser, encode_message

import asyncio
from asyncio import CancelledError, InvalidStateError

from antiphon.wire.prepared import encode_compressed

from .errors import ClientDisconnected

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

cdef enum:
    HANDSHAKE = 0
    WAITING_APP = 1
    OPEN = 2
    CLOSING_SENT = 3
    CLOSED = 6

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

# The payload sent last, by identity, and its frames: a loop that sends one str to a thousand connections encodes and
# compresses it once. What is large is not kept alive for that.
cdef object last_payload = None
cdef bytes last_frame = None
cdef bytes last_deflated = None
cdef Py_ssize_t LARGEST_KEPT = 1 << 16
cdef Py_ssize_t BURST = 256
cdef Py_ssize_t SLICE = 128 << 10
cdef Py_ssize_t COMPRESSED_SLICE = 16 << 10
cdef Py_ssize_t WRITES = 64  # benchmarks/, relay with 8 in flight


include "_waiting.pxi"  # Receive, Waiter, Done: one module with this, so that they call each other as C does


@cython.final
cdef class Flusher:
    """Writes out every channel that has put something into its outbox, `WRITES` of them per turn of the loop.

    Between two turns the loop reads: what comes for a channel before its turn leaves in the same write.
    """

    cdef object loop
    cdef object run
    cdef list marked
    cdef list turn
    cdef bint scheduled
    cdef object done  # a future that is done

    def __init__(self, loop):
        self.loop = loop
        self.done = loop.create_future()
        self.done.set_result(None)
        self.run = self._run
        self.marked = []
        self.turn = []

    @property
    def idle(self):
        return not self.scheduled

    cdef int add(self, Channel channel) except -1:
        self.marked.append(channel)
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self.run)
        return 0

    def mark(self, Channel channel):
        self.add(channel)

    def _run(self):
        cdef list turn = self.turn
        cdef Channel channel
        cdef Py_ssize_t left = WRITES
        if not turn:
            turn = self.turn = self.marked
            self.marked = []
            turn.reverse()
        while turn and left:
            left -= 1
            channel = turn.pop()
            channel.dirty = False
            try:
                channel.write_out()
            except Exception as error:  # a transport's bug stays with its own connection
                self.loop.call_exception_handler({"message": "flushing a WebSocket failed", "exception": error})
        self.scheduled = bool(turn or self.marked)
        if self.scheduled:
            self.loop.call_soon(self.run)


cdef class Channel:
    """One connection's two directions; an `asyncio.Protocol` as far as data is concerned."""

    cdef readonly object loop
    cdef readonly Flusher flusher
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
    cdef public bint was_paused
    cdef public bint rated
    cdef public bint hoards
    cdef public bint handed
    cdef public bint busy
    cdef public bint dirty
    cdef public unsigned long long received
    cdef public unsigned long long handed_bytes
    cdef public Py_ssize_t inbox_bytes
    cdef public Py_ssize_t out_bytes
    cdef list _inbox
    cdef Py_ssize_t _head  # what is before it in the inbox has been taken
    cdef Waiter _waiter
    cdef object _out  # None, one frame, or a list of frames
    cdef object _rest  # None, or bytes of a chunk, for the loop's next turn or until the app has read

    def __init__(self, engine):
        self.loop = engine.loop
        self.flusher = engine.flusher
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
        if self.state != OPEN and self.state != CLOSING_SENT:
            self.on_early_data(data)
            return
        if self.parser is None:
            return
        if self._rest is not None:  # a transport that delivers what it had when we paused it
            self._rest += data
            return
        self.busy = True
        try:
            size = SLICE if self._deflate is None else COMPRESSED_SLICE
            if len(data) <= size:
                self.parse(data)
            else:
                self.parse_in_turns(data, size)
        finally:
            self.busy = False
            if self._out is not None and not self.dirty:
                if not self.flusher.scheduled:
                    self.write_out()
                else:
                    self.dirty = True
                    self.flusher.add(self)

    cdef int parse(self, data) except -1:
        cdef Parser parser = self.parser
        cdef list events
        cdef Py_ssize_t held
        self.received += 1
        events = parser.feed(data)
        if PyList_GET_SIZE(events):
            self.sort(events)
        if self.rated:
            self.on_rate(len(data))
        held = parser._size + parser._wire_size
        if held > SLICE or self.hoards:
            self.on_unfinished(held if held > SLICE else 0)
        if self._waiter is not None and (self._inbox is not None or self.close_code is not None):
            self.step_reader()
        if parser.error is not None and self.parser is not None:
            self.on_violation(parser.error)
        if self.inbox_bytes > self.inbound_limit and not self.reading_paused:
            self.pause_reading()
        return 0

    cdef int parse_in_turns(self, data, Py_ssize_t size) except -1:
        self.parse(data[:size])
        if self.parser is None or self.transport is None or self.transport.is_closing():
            return 0
        self._rest = bytes(data[size:])
        if not self.reading_paused:
            self.transport.pause_reading()
            self.loop.call_soon(self._go_on)
        return 0

    def _go_on(self):
        """Parse more of what was left, then read on."""
        cdef object rest = self._rest
        if self.reading_paused:
            return
        self._rest = None
        if rest is not None:
            self.data_received(rest)
        if self._rest is not None or self.reading_paused:
            return
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def parse_rest(self):
        while self._rest is not None and not self.reading_paused:
            self._go_on()

    cdef int sort(self, list events) except -1:
        """Messages into the inbox, the rest to where it is handled."""
        cdef object event
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
            else:
                self.on_control(event)
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
        if self.reading_paused and self.inbox_bytes * 2 <= self.inbound_limit:
            self.resume_reading()
        if kind == READ:
            return payload
        if type(payload) is str:
            return {TYPE: WEBSOCKET_RECEIVE, TEXT: payload}
        return {TYPE: WEBSOCKET_RECEIVE, BYTES: payload}

    cdef int pause_reading(self) except -1:
        if self.transport is not None and not self.transport.is_closing():
            self.reading_paused = self.was_paused = True
            self.transport.pause_reading()
            self.on_paused()
        return 0

    def resume_reading(self):
        if self.reading_paused:
            self.reading_paused = False
            if self._rest is not None:
                self.loop.call_soon(self._go_on)
            elif self.transport is not None and not self.transport.is_closing():
                self.transport.resume_reading()

    def forget_inbox(self):
        self._inbox = None
        self.inbox_bytes = 0

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
        receive.channel = self
        receive.kind = READ
        return receive

    def asgi_receive(self):
        cdef Receive receive = Receive.__new__(Receive)
        receive.channel = self
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
        self.append(self.frame_of(payload))
        return self.has_room()

    cdef bint has_room(self) except -1:
        if type(self._out) is list and PyList_GET_SIZE(self._out) >= BURST:
            return False
        return self.size() <= self.outbox_limit

    cdef bytes frame_of(self, payload):
        """The frame for a message of our own, or of many connections."""
        global last_payload, last_frame, last_deflated
        cdef bytes frame
        if self._deflate is None:
            if payload is last_payload and last_frame is not None:
                return last_frame
            frame = encode_message(payload)
        elif self.shareable:
            if payload is last_payload and last_deflated is not None:
                return last_deflated
            frame = encode_compressed(payload, self._deflate)
        else:
            return encode_compressed(payload, self._deflate)
        if (type(payload) is str or type(payload) is bytes) and len(payload) <= LARGEST_KEPT:
            if payload is not last_payload:
                last_payload = payload
                last_frame = last_deflated = None
            if self._deflate is None:
                last_frame = frame
            else:
                last_deflated = frame
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
            self.append(self.frame_of(payload))
            return DONE if self.has_room() else self.drain()
        return self.send_rarely(message)

    def drain(self):
        self.write_out()
        if self.state != OPEN:
            raise ClientDisconnected("the WebSocket is not open")
        return self.breathe() if self.size() <= self.outbox_limit else self.drain_slowly()

    def put(self, bytes data):
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
        self.out_bytes = 0
        if self.transport is None or self.state == CLOSED:
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
        return <Py_ssize_t>payload.__sizeof__() + 64
    return len(payload) + 64


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
