# Bytes in C: masking, and UTF-8 for a text that comes in pieces. A part of `_native.pyx`.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #define ANTIPHON_HIGH_BITS 0x8080808080808080ULL

    /* out = in XOR key, not in place. Tells whether any byte of the result is not ASCII. The words are read with
       memcpy, so nothing needs to be aligned; compilers make vector instructions of the loop. */
    static inline int antiphon_xor(unsigned char *restrict out, const unsigned char *restrict in, Py_ssize_t size,
                                   const unsigned char *key) {
        uint32_t half;
        uint64_t pattern, word, seen = 0;
        Py_ssize_t i = 0;
        memcpy(&half, key, 4);
        pattern = ((uint64_t)half << 32) | half;
        for (; i + 8 <= size; i += 8) {
            memcpy(&word, in + i, 8);
            word ^= pattern;
            seen |= word;
            memcpy(out + i, &word, 8);
        }
        for (; i < size; i++) {
            unsigned char byte = in[i] ^ key[i & 3];
            seen |= byte;
            out[i] = byte;
        }
        return (seen & ANTIPHON_HIGH_BITS) != 0;
    }

    /* One step of UTF-8 for a text that comes in pieces (RFC 3629 section 4): the table of well-formed sequences as
       "how many more bytes, and the next one between these". 0: cannot become UTF-8 any more. */
    static int antiphon_utf8(const unsigned char *p, Py_ssize_t size, unsigned char *need, unsigned char *lower,
                             unsigned char *upper) {
        const unsigned char *end = p + size;
        unsigned char n = *need, lo = *lower, hi = *upper;
        while (p < end) {
            unsigned char c;
            if (n == 0) {
                uint64_t word;
                while (end - p >= 8) {
                    memcpy(&word, p, 8);
                    if (word & ANTIPHON_HIGH_BITS)
                        break;
                    p += 8;
                }
                if (p == end)
                    break;
                c = *p++;
                if (c < 0x80)
                    continue;
                lo = 0x80;
                hi = 0xBF;
                if (c < 0xC2)
                    return 0;
                if (c < 0xE0) {
                    n = 1;
                } else if (c < 0xF0) {
                    n = 2;
                    if (c == 0xE0) lo = 0xA0;
                    if (c == 0xED) hi = 0x9F;
                } else if (c < 0xF5) {
                    n = 3;
                    if (c == 0xF0) lo = 0x90;
                    if (c == 0xF4) hi = 0x8F;
                } else {
                    return 0;
                }
            } else {
                c = *p++;
                if (c < lo || c > hi)
                    return 0;
                n--;
                lo = 0x80;
                hi = 0xBF;
            }
        }
        *need = n;
        *lower = lo;
        *upper = hi;
        return 1;
    }
    """
    bint antiphon_xor(unsigned char *out, const unsigned char *data, Py_ssize_t size, const unsigned char *key) noexcept
    bint antiphon_utf8(
        const unsigned char *data, Py_ssize_t size, unsigned char *need, unsigned char *lower, unsigned char *upper
    ) noexcept
