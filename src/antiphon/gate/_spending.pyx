# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The native twin of `spending.py`, which documents each name (benchmarks/rates.py)."""

from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_Check

from antiphon.connection.paced import size_of

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef object _size_of = size_of


cdef class Bucket:
    cdef public double due

    def __init__(self):
        self.due = 0.0


cdef class Table:
    cdef public long long turn

    def __init__(self):
        self.turn = 0


cdef class Purse:
    cdef public double step
    cdef public double depth
    cdef public Table table
    cdef public Bucket bucket
    cdef public long long turn

    def __init__(self, double step, double depth, Table table not None):
        self.step = step
        self.depth = depth
        self.table = table
        self.bucket = Bucket()
        self.turn = table.turn


cdef class Spending:
    cdef list _shares
    cdef list _in_bytes
    cdef bint _counts_bytes

    def __init__(self, shares):
        self._shares = []
        self._in_bytes = []
        self._counts_bytes = False
        for share, in_bytes in shares:
            if not isinstance(share, Purse):
                raise TypeError(f"expected a Purse, got {type(share).__name__}")
            self._shares.append(share)
            self._in_bytes.append(bool(in_bytes))
            self._counts_bytes = self._counts_bytes or in_bytes

    def passes(self, double now, object data):
        cdef Py_ssize_t place, count = PyList_GET_SIZE(self._shares)
        cdef double size = 1.0, due
        cdef Purse share
        if self._counts_bytes:
            if PyBytes_CheckExact(data):
                size = <double>PyBytes_GET_SIZE(data)
            elif PyUnicode_Check(data) and PyUnicode_IS_ASCII(data):
                size = <double>PyUnicode_GET_LENGTH(data)
            else:
                size = _size_of(data)
        for place in range(count):
            share = <Purse><object>PyList_GET_ITEM(self._shares, place)
            if share.turn != share.table.turn or self._due(share, place, now, size) - now > share.depth:
                return False
        for place in range(count):
            share = <Purse><object>PyList_GET_ITEM(self._shares, place)
            share.bucket.due = self._due(share, place, now, size)
        return True

    cdef inline double _due(self, Purse share, Py_ssize_t place, double now, double size):
        cdef double due = share.bucket.due
        if due < now:
            due = now
        return due + (share.step * size if self._in_bytes[place] is True else share.step)
