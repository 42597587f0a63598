# Frames that go out: the native twin of the encoder in `frames.py`. A part of `_native.pyx`.


cdef bytes build_frame(unsigned char first, const unsigned char *payload, Py_ssize_t size, const unsigned char *key):
    cdef unsigned char masked = 0 if key == NULL else 0x80
    cdef Py_ssize_t head = 2 if size < 126 else 4 if size < 1 << 16 else 10
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, head + size + (4 if masked else 0))
    cdef unsigned char *out = <unsigned char *>PyBytes_AS_STRING(frame)
    cdef int i
    out[0] = first
    if head == 2:
        out[1] = masked | <unsigned char>size
    elif head == 4:
        out[1] = masked | 126
        out[2] = <unsigned char>(size >> 8)
        out[3] = <unsigned char>(size & 0xFF)
    else:
        out[1] = masked | 127
        for i in range(8):
            out[2 + i] = <unsigned char>((<unsigned long long>size >> (56 - 8 * i)) & 0xFF)
    out += head
    if masked:
        memcpy(out, key, 4)
        antiphon_xor(out + 4, payload, size, key)
    else:
        memcpy(out, payload, size)
    return frame


cdef bytes _build(unsigned char first, payload, const unsigned char *key):
    """`build_frame` for any Python object that holds the payload."""
    cdef Py_buffer view
    cdef bytes encoded
    if PyUnicode_Check(payload):
        if PyUnicode_IS_ASCII(payload):
            return build_frame(
                first, <const unsigned char *>PyUnicode_DATA(payload), PyUnicode_GET_LENGTH(payload), key
            )
        encoded = PyUnicode_AsUTF8String(payload)
        return build_frame(first, <const unsigned char *>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded), key)
    if PyBytes_CheckExact(payload):
        return build_frame(first, <const unsigned char *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), key)
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        return build_frame(first, <const unsigned char *>view.buf, view.len, key)
    finally:
        PyBuffer_Release(&view)


cpdef bytes encode_message(payload):
    """The whole frame a server sends for one message, uncompressed: text for `str`, binary for `bytes`."""
    return _build(0x81 if PyUnicode_Check(payload) else 0x82, payload, NULL)


def encode_frame(int opcode, payload, *, bint fin=True, bint rsv1=False, bytes mask=None):
    """One whole frame (RFC 6455 §5.2). A `str` payload is encoded as UTF-8; `mask` is the client's four-byte key.

    The length is encoded minimally. Raises ValueError for a control frame that is fragmented, compressed or longer than
    125 bytes, for an unknown opcode, and for a key that is not four bytes.
    """
    cdef bytes frame
    cdef const unsigned char *key = NULL
    if mask is not None:
        if len(mask) != 4:
            raise ValueError(f"a masking key has 4 bytes, not {len(mask)}")
        key = <const unsigned char *>PyBytes_AS_STRING(mask)
    if not (0 <= opcode <= 0x2 or 0x8 <= opcode <= 0xA):
        raise ValueError(f"opcode {opcode:#x} is reserved (RFC 6455 §5.2)")
    frame = _build(opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0), payload, key)
    if opcode >= 0x8 and (not fin or rsv1 or len(frame) > (127 if key == NULL else 131)):
        raise ValueError("a control frame is whole, uncompressed and at most 125 bytes long (RFC 6455 §5.5)")
    return frame


def mask(data, bytes key not None):
    """`data` XOR the repeated four bytes of `key`: masks and unmasks alike (RFC 6455 §5.3).

    Raises ValueError when `key` is not four bytes.
    """
    cdef Py_buffer view
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _unmasked(<const unsigned char *>view.buf, view.len, <const unsigned char *>PyBytes_AS_STRING(key))
    finally:
        PyBuffer_Release(&view)
