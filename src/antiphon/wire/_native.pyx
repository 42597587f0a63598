# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The native twin of `parser.py` and of the encoder in `frames.py`: same names, same events, same errors.

Reads straight from the buffer it is given and holds nothing of it after the call. The readable twin has the rules, with
their sections of RFC 6455. This one has the ways to apply them quickly (benchmarks/parser.py).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.string cimport memcpy

from .errors import ProtocolError, Violation
from .frames import Ping, Pong, Role, decode_close
from .parser import compressed_limit

include "_bytes.pxi"  # antiphon_xor, antiphon_utf8

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_DATA(object text)
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    PyObject *raw_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1
    Py_ssize_t PY_SSIZE_T_MAX


cdef object _ping = Ping
cdef object _pong = Pong
cdef object _decode_close = decode_close
cdef object _ProtocolError = ProtocolError

cdef object RESERVED_BITS = Violation.RESERVED_BITS
cdef object RESERVED_OPCODE = Violation.RESERVED_OPCODE
cdef object FRAGMENTED_CONTROL = Violation.FRAGMENTED_CONTROL
cdef object LONG_CONTROL = Violation.LONG_CONTROL
cdef object NOT_MASKED = Violation.NOT_MASKED
cdef object MASKED = Violation.MASKED
cdef object STRAY_CONTINUATION = Violation.STRAY_CONTINUATION
cdef object INTERRUPTED_MESSAGE = Violation.INTERRUPTED_MESSAGE
cdef object LENGTH_NOT_MINIMAL = Violation.LENGTH_NOT_MINIMAL
cdef object LENGTH_TOO_LARGE = Violation.LENGTH_TOO_LARGE
cdef object TEXT = Violation.TEXT
cdef object TOO_BIG = Violation.TOO_BIG

cdef Py_ssize_t NO_LIMIT = PY_SSIZE_T_MAX // 2


cdef inline unsigned char *_bytes_data(PyObject *data) noexcept:
    return <unsigned char *>PyBytes_AS_STRING(<object>data)


cdef int _grow(PyObject **where, Py_ssize_t needed, Py_ssize_t final) except -1:
    """Make room for `needed` bytes. `final` is the size of the message, as far as its last frame tells.

    It at most doubles the bytes that have really come: a peer cannot make us allocate by announcing. It does double
    where the end is not in sight: a message in many fragments is not copied for each.
    """
    cdef Py_ssize_t capacity
    if where[0] == NULL:
        where[0] = raw_bytes(NULL, needed)
        return 0
    capacity = PyBytes_GET_SIZE(<object>where[0])
    if needed <= capacity:
        return 0
    capacity = max(needed, min(final, 2 * needed))
    return _PyBytes_Resize(where, capacity)


cdef object _decode_masked(const unsigned char *data, Py_ssize_t size, const unsigned char *key):
    """Unmask into the future string's buffer, which is enough if all of it is ASCII, as most text is. Else decode from
    there."""
    cdef object text
    cdef unsigned char short[2]
    if size < 2:  # the interpreter keeps the empty and one-character strings itself
        antiphon_xor(short, data, size, key)
        return PyUnicode_DecodeUTF8(<char *>short, size, NULL)
    text = PyUnicode_New(size, 127)
    if antiphon_xor(<unsigned char *>PyUnicode_DATA(text), data, size, key):
        return PyUnicode_DecodeUTF8(<char *>PyUnicode_DATA(text), size, NULL)
    return text


cdef inline bytes _unmasked(const unsigned char *data, Py_ssize_t size, const unsigned char *key):
    cdef bytes out
    if key == NULL:
        return PyBytes_FromStringAndSize(<const char *>data, size)
    out = PyBytes_FromStringAndSize(NULL, size)
    antiphon_xor(<unsigned char *>PyBytes_AS_STRING(out), data, size, key)
    return out


cdef class Parser:
    """An incremental parser for one direction of one connection; `role` is the side that reads.

    `feed` never raises for the peer's bytes: it returns the events complete before the violation and sets `error`.
    After an error or a Close frame everything fed is ignored (RFC 6455 §1.4, §7.1.7).
    """

    def __cinit__(self):
        self._remaining = -1

    def __init__(self, *, role, max_message_size, inflater=None):
        if max_message_size < 1:
            raise ValueError(f"max_message_size must be positive, not {max_message_size}")
        self._masked = 0x80 if role is Role.SERVER else 0
        self._limit = min(max_message_size, NO_LIMIT)
        self._wire_limit = min(compressed_limit(max_message_size), NO_LIMIT)
        self._inflater = inflater

    def __dealloc__(self):
        self._forget()

    @property
    def buffered(self):
        """Bytes held for an unfinished message."""
        return (0 if self._pending is None else PyBytes_GET_SIZE(self._pending)) + self._size + self._wire_size

    cpdef list feed(self, data):
        """Take the next bytes; return the messages and control frames they complete, in order."""
        cdef list events = []
        cdef Py_buffer view
        if PyBytes_CheckExact(data):
            self.feed_memory(
                <const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), NO_LIMIT, events
            )
            return events
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)  # while it is held a bytearray cannot be resized
        try:
            self.feed_memory(<const unsigned char *>view.buf, view.len, NO_LIMIT, events)
        finally:
            PyBuffer_Release(&view)
        return events

    cpdef Py_ssize_t feed_some(
        self, bytes data, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t work, list events
    ) except -1:
        """As `feed`, for `data[start:stop]`, until so much work is done; append to `events`, return where to go on."""
        if not 0 <= start <= stop <= PyBytes_GET_SIZE(data):
            raise IndexError("no such part of the data")
        return start + self.feed_memory(
            <const unsigned char *>PyBytes_AS_STRING(data) + start, stop - start, work, events
        )

    cdef Py_ssize_t feed_memory(
        self, const unsigned char *data, Py_ssize_t size, Py_ssize_t work, list events
    ) except -1:
        if self.error is not None or self.closed:
            return size
        self._work = work
        try:
            return self._take(data, size, events)
        except _ProtocolError as error:
            self.error = error
            self._forget()
        return size

    cdef Py_ssize_t _take(self, const unsigned char *data, Py_ssize_t size, list events) except -1:
        cdef unsigned char joint[288]
        cdef Py_ssize_t held
        cdef Py_ssize_t taken
        cdef Py_ssize_t used
        cdef Py_ssize_t first = 0  # bytes of `data` that were read in `joint`
        if self._pending is not None:
            # Enough of the new bytes to complete any header or control frame; the rest is read where it is.
            held = PyBytes_GET_SIZE(self._pending)
            taken = min(size, 144)
            memcpy(joint, PyBytes_AS_STRING(self._pending), held)
            memcpy(joint + held, data, taken)
            self._pending = None
            used = self._parse(joint, held + taken, events)
            if used == 0:  # still not complete, so all new bytes are in `joint`
                self._pending = PyBytes_FromStringAndSize(<const char *>joint, held + taken)
                return size
            if self.closed:
                return size
            first = used - held
            if self.inflating or self._work <= 0:
                return first
        used = first + self._parse(data + first, size - first, events)
        if self.closed:
            return size
        if used < size and not self.inflating and self._work > 0:
            self._pending = PyBytes_FromStringAndSize(<const char *>data + used, size - used)
            return size
        return used

    cdef Py_ssize_t _parse(self, const unsigned char *data, Py_ssize_t size, list events) except -1:
        """Read frames. Returns where an incomplete header or control frame begins (`size`: there is none), or, once the
        allowed work is done, how far it got."""
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t start
        cdef unsigned long long length
        cdef unsigned char first
        cdef unsigned char second
        cdef unsigned char opcode
        cdef bint compressed
        cdef int i
        while True:
            if self._remaining >= 0 and not self.inflating:
                position += self._continue_frame(data + position, size - position, events)
                if self._remaining >= 0:
                    return position
            if self.inflating:
                self._inflate(events)
            if self._work <= 0 or self.inflating:
                return position
            if size - position < 2:
                return position
            first = data[position]
            second = data[position + 1]
            opcode = first & 0x0F
            self._check_header(first, second, opcode)
            length = second & 0x7F
            start = position + 2
            if length == 126:
                if size - start < 2:
                    return position
                length = (<unsigned int>data[start] << 8) | data[start + 1]
                if length < 126:
                    raise _ProtocolError(LENGTH_NOT_MINIMAL)
                start += 2
            elif length == 127:
                if size - start < 8:
                    return position
                length = 0
                for i in range(8):
                    length = (length << 8) | data[start + i]
                if length >> 63:
                    raise _ProtocolError(LENGTH_TOO_LARGE)
                if length < 1 << 16:
                    raise _ProtocolError(LENGTH_NOT_MINIMAL)
                start += 8
            if opcode < 0x8:
                compressed = first & 0x40 or (opcode == 0 and self._compressed)
                if length > <unsigned long long>(self._wire_limit if compressed else self._limit - self._size):
                    raise _ProtocolError(TOO_BIG)
            if self._masked:
                if size - start < 4:
                    return position
                memcpy(self._key, data + start, 4)
                start += 4
            if opcode >= 0x8:
                if size - start < <Py_ssize_t>length:
                    return position
                self._control(opcode, data + start, length, events)
                position = start + length
                if self.closed:
                    return position
                continue
            self.frames += 1
            self._work -= 1
            if opcode:
                self._opcode = opcode
                self._compressed = first & 0x40 != 0
            if size - start >= <Py_ssize_t>length:
                self._whole(data + start, length, first & 0x80, events)
                position = start + length
                continue
            self._remaining = length
            self._fin = first & 0x80
            position = start

    cdef int _check_header(self, unsigned char first, unsigned char second, unsigned char opcode) except -1:
        if first & 0x70:
            if first & 0x30 or self._inflater is None or opcode not in (1, 2):
                raise _ProtocolError(RESERVED_BITS)
        if opcode >= 0x8:
            if opcode > 0xA:
                raise _ProtocolError(RESERVED_OPCODE)
            if not first & 0x80:
                raise _ProtocolError(FRAGMENTED_CONTROL)
            if second & 0x7F > 125:
                raise _ProtocolError(LONG_CONTROL)
        elif opcode > 2:
            raise _ProtocolError(RESERVED_OPCODE)
        elif opcode == 0:
            if not self._opcode:
                raise _ProtocolError(STRAY_CONTINUATION)
        elif self._opcode:
            raise _ProtocolError(INTERRUPTED_MESSAGE)
        if second & 0x80 != self._masked:
            raise _ProtocolError(NOT_MASKED if self._masked else MASKED)
        return 0

    cdef inline const unsigned char *_key_or_null(self) noexcept:
        return self._key if self._masked else NULL

    cdef int _control(self, unsigned char opcode, const unsigned char *data, Py_ssize_t size, list events) except -1:
        cdef bytes payload = _unmasked(data, size, self._key_or_null())
        self.frames += 1
        self._work -= 1
        if opcode == 0x9:
            events.append(_ping(payload))
        elif opcode == 0xA:
            events.append(_pong(payload))
        else:
            events.append(_decode_close(payload))
            self.closed = True
            self._forget()
        return 0

    cdef int _whole(self, const unsigned char *data, Py_ssize_t size, unsigned char fin, list events) except -1:
        """A data frame whose payload is all there."""
        cdef unsigned char opcode
        cdef const unsigned char *key = self._key_or_null()
        if self._compressed:
            return self._begin_inflating(_unmasked(data, size, key), fin)
        if not fin or self._size:
            self._collect(data, size, size if fin else NO_LIMIT, key)
            return self._finish(events) if fin else 0
        opcode = self._opcode
        self._opcode = 0
        if opcode == 2:
            events.append(_unmasked(data, size, key))
            return 0
        try:
            if key == NULL:
                events.append(PyUnicode_DecodeUTF8(<const char *>data, size, NULL))
            else:
                events.append(_decode_masked(data, size, key))
        except UnicodeDecodeError:
            raise _ProtocolError(TEXT) from None
        return 0

    cdef Py_ssize_t _continue_frame(self, const unsigned char *data, Py_ssize_t size, list events) except -1:
        """Take the available part of an incomplete frame's payload. Returns its size."""
        cdef bytes payload
        cdef PyObject *wire
        cdef unsigned char turned[4]
        cdef int i
        if size > self._remaining:
            size = self._remaining
        if not size:
            return 0
        if self._compressed:
            _grow(&self._wire, self._wire_size + size, self._wire_size + self._remaining)
            if self._masked:
                antiphon_xor(_bytes_data(self._wire) + self._wire_size, data, size, self._key)
            else:
                memcpy(_bytes_data(self._wire) + self._wire_size, data, size)
            self._wire_size += size
        else:
            self._collect(data, size, self._remaining if self._fin else NO_LIMIT, self._key_or_null())
        for i in range(4):
            turned[i] = self._key[(i + size) & 3]
        memcpy(self._key, turned, 4)
        self._remaining -= size
        if self._remaining:
            return size
        self._remaining = -1
        if self._compressed:
            payload = PyBytes_FromStringAndSize(<char *>_bytes_data(self._wire), self._wire_size)
            wire = self._wire
            self._wire = NULL
            self._wire_size = 0
            Py_XDECREF(wire)
            self._begin_inflating(payload, self._fin)
        elif self._fin:
            self._finish(events)
        return size

    cdef int _begin_inflating(self, bytes data, unsigned char fin) except -1:
        self._inflater.begin_frame(data, fin != 0)
        self._wire_size = PyBytes_GET_SIZE(data)
        self._fin = fin
        self.inflating = True
        return 0

    cdef int _inflate(self, list events) except -1:
        """Inflate as much of a whole frame as there is work left for."""
        cdef bytes payload = b""
        cdef Py_ssize_t size
        cdef unsigned char opcode = self._opcode
        while self._inflater.more:
            size = PyBytes_GET_SIZE(payload)
            if size:
                self._collect(<const unsigned char *>PyBytes_AS_STRING(payload), size, self._limit - self._size, NULL)
                payload = b""
            if self._work <= 0:
                return 0
            payload = self._inflater.inflate_some(self._limit - self._size)
            self._work -= 1 + (len(payload) >> 10)
        self.inflating = False
        self._wire_size = 0
        size = PyBytes_GET_SIZE(payload)
        if not self._fin or self._size:
            self._collect(
                <const unsigned char *>PyBytes_AS_STRING(payload), size, size if self._fin else NO_LIMIT, NULL
            )
            return self._finish(events) if self._fin else 0
        self._opcode = 0
        self._compressed = False
        if opcode == 2:
            events.append(payload)
            return 0
        try:
            events.append(PyUnicode_DecodeUTF8(PyBytes_AS_STRING(payload), size, NULL))
        except UnicodeDecodeError:
            raise _ProtocolError(TEXT) from None
        return 0

    cdef int _collect(
        self, const unsigned char *data, Py_ssize_t size, Py_ssize_t to_come, const unsigned char *key
    ) except -1:
        """Keep a part of the message, having checked that it can still become UTF-8."""
        cdef unsigned char *end
        cdef bint wide = True
        if not size:
            return 0
        _grow(&self._buffer, self._size + size, self._size + to_come)
        end = _bytes_data(self._buffer) + self._size
        if key == NULL:
            memcpy(end, data, size)
        else:
            wide = antiphon_xor(end, data, size, key)
        self._size += size
        if self._opcode == 1 and (wide or self._need):
            if not antiphon_utf8(end, size, &self._need, &self._lower, &self._upper):
                raise _ProtocolError(TEXT)
        return 0

    cdef int _finish(self, list events) except -1:
        """The message in the buffer is complete."""
        cdef PyObject *buffer = self._buffer
        cdef Py_ssize_t size = self._size
        cdef unsigned char opcode = self._opcode
        self._opcode = 0
        self._compressed = False
        self._buffer = NULL
        self._size = 0
        try:
            if opcode == 1:
                if self._need:
                    raise _ProtocolError(TEXT)
                events.append(PyUnicode_DecodeUTF8(<char *>_bytes_data(buffer), size, NULL) if size else "")
            elif buffer == NULL:
                events.append(b"")
            else:
                _PyBytes_Resize(&buffer, size)
                events.append(<object>buffer)
        finally:
            Py_XDECREF(buffer)
        return 0

    cdef void _forget(self) noexcept:
        cdef PyObject *buffer = self._buffer
        cdef PyObject *wire = self._wire
        self._buffer = NULL
        self._wire = NULL
        self._size = 0
        self._wire_size = 0
        self.inflating = False
        self._pending = None
        Py_XDECREF(buffer)
        Py_XDECREF(wire)


include "_encoding.pxi"  # build_frame, encode_message, encode_frame, mask
