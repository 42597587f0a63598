# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The native twin of the pipe. `pipe.py` is the readable one, and documents each name.

A reader waits in another way here. `read()` and `asgi_receive()` return a `Receive`, which ends at once when a message
waits. Otherwise it parks a `Waiter` in the pipe, which has as much of a future as a task needs. When bytes come, the
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

from antiphon.types import ClosedBy
from antiphon.wire import Phase, Ping
from antiphon.wire.prepared import encode_compressed

from . import bounds
from .errors import ClientDisconnected, nothing_more, send_to_nobody
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
include "_reading.pxi"  # Reading: the way in

@cython.final
cdef class Pipe(Reading):
    """One connection's two directions."""

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
            # Compressing changes the peer's window too, and compressed data has to be sent: ask for room first.
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
        if self.close_code is not None:
            return send_to_nobody(message[TYPE], by_app=self.told and self.closed_by is ClosedBy.US)
        return self.owner.send_other(message)

    def drain(self):
        self.write_out()
        if self.state != OPEN:
            raise ClientDisconnected("the WebSocket is not open")
        return self.watch.yield_to_loop() if self.size() <= self.outbox_limit else self.watch.drain_slowly()

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
        self.flusher.owed += PyBytes_GET_SIZE(data)
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
        self.flusher.owed -= self.out_bytes
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
        if self.finished and not self.transport.can_write_eof():
            return 0  # TLS has no half of a connection: it closes with the peer's end
        self.handed_bytes += PyBytes_GET_SIZE(data)
        self.transport.write(data)
        if not self.handed and self.transport.get_write_buffer_size():
            self.handed = True
            self.watch.on_handed()
        return 0

    # ------------------------------------------------------------ who waits: behind the end nobody is asked

    def disconnect(self, code, reason):
        if self.close_code is None:
            self.owner.disconnect(code, reason)

    def on_writable(self, callback):
        self.write_out()
        if self.close_code is None and self.handed:
            self.watch.on_writable(callback)
        else:
            self.loop.call_soon(callback)

    def on_close(self, callback):
        if self.close_code is None:
            self.watch.on_close(callback)
        else:
            callback()

    def off_close(self, callback):
        if self.close_code is None:
            self.watch.off_close(callback)

    def let_go(self):
        self.owner = self.watch = None


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
