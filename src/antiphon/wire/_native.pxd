"""The interface for other native modules: the parser fed from memory, and frames built straight into bytes."""

from cpython.object cimport PyObject


cdef class Parser:
    cdef readonly unsigned long long frames
    cdef readonly object error
    cdef readonly bint closed

    cdef object _inflater
    cdef Py_ssize_t _limit
    cdef Py_ssize_t _wire_limit
    cdef unsigned char _masked  # 0x80 when the peer has to mask, else 0

    # The message in progress.
    cdef unsigned char _opcode  # 0: none
    cdef bint _compressed
    cdef PyObject *_buffer  # a bytes object only we know of, or NULL
    cdef Py_ssize_t _size  # of it in use
    cdef unsigned char _need  # bytes missing in the UTF-8 sequence at its end,
    cdef unsigned char _lower  # and between which values the next one has to be
    cdef unsigned char _upper

    # The frame in progress.
    cdef Py_ssize_t _remaining  # bytes of its payload to come; -1: none
    cdef unsigned char _fin
    cdef unsigned char _key[4]
    cdef PyObject *_wire  # payload of a compressed one
    cdef Py_ssize_t _wire_size
    cdef bytes _pending  # None, or an unfinished header or control frame
    cdef readonly bint inflating  # the frame is whole, `_wire_size` its bytes; the inflater has them
    cdef Py_ssize_t _work  # left of the work of `feed_some`

    cpdef list feed(self, data)
    cpdef Py_ssize_t feed_some(self, bytes data, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t work, list events) except -1
    # For memory that stays as it is until the call returns; returns where to go on.
    cdef Py_ssize_t feed_memory(
        self, const unsigned char *data, Py_ssize_t size, Py_ssize_t work, list events
    ) except -1

    cdef Py_ssize_t _take(self, const unsigned char *data, Py_ssize_t size, list events) except -1
    cdef Py_ssize_t _parse(self, const unsigned char *data, Py_ssize_t size, list events) except -1
    cdef int _check_header(self, unsigned char first, unsigned char second, unsigned char opcode) except -1
    cdef int _control(self, unsigned char opcode, const unsigned char *data, Py_ssize_t size, list events) except -1
    cdef Py_ssize_t _continue_frame(self, const unsigned char *data, Py_ssize_t size, list events) except -1
    cdef int _whole(self, const unsigned char *data, Py_ssize_t size, unsigned char fin, list events) except -1
    cdef int _begin_inflating(self, bytes data, unsigned char fin) except -1
    cdef int _inflate(self, list events) except -1
    cdef int _collect(self, const unsigned char *data, Py_ssize_t size, Py_ssize_t to_come, const unsigned char *key) except -1
    cdef int _finish(self, list events) except -1
    cdef inline const unsigned char *_key_or_null(self) noexcept
    cdef void _forget(self) noexcept


# One frame. `first` is the first byte as it goes on the wire; `key` NULL: unmasked.
cdef bytes build_frame(unsigned char first, const unsigned char *payload, Py_ssize_t size, const unsigned char *key)

# The whole frame a server sends for one message.
cpdef bytes encode_message(payload)
