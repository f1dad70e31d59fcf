"""The safe form of a value: plain builtin data to bytes and back, with nothing in it that could run code.

Nouns: a *tag* is the byte that says what follows; the *memo* holds what was met before, so that a list that is shared, or contains
itself, is so again; a *reference* names a memo entry by its number.

    stream   | 0xD5 | value |
    value    N None, T True, F False, E Ellipsis                              the tag alone
             i varint n, n bytes (signed)     d 8 bytes     c 16 bytes        int, float, complex
             s varint n, n bytes of UTF-8     b ...  a ...                    str, bytes, bytearray
             l varint n, n values   t ...   S ...   Z ...                     list, tuple, set, frozenset
             m varint n, n times key and value                                dict
             r varint number                                                  reference

Memo numbers are given to lists, dicts, sets and bytearrays when they begin, to tuples and frozensets with members when they end,
and to str and bytes of 32 bytes and more.

Invariants:
  1. Encoding runs no code of the value: types are compared exactly, and a subclass is refused.
  2. Decoding reads nothing beyond the bytes given, and allocates at most a constant times as many: every member of a container
     takes at least one byte, and a reference copies nothing.

Threads: the GIL protects everything; the value must not change meanwhile. Cost: 20 to 60 ns for each object.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from spectral_alloc.errors import CorruptFrameError

cdef enum:
    MAGIC = 0xD5
    DEPTH_MAX = 500
    MEMO_FROM_BYTES = 32
    VARINT_BYTES_MAX = 9

SAFE_MAGIC = MAGIC


cdef class _Encoder:
    cdef uint8_t *out
    cdef size_t used, room
    cdef dict memo
    cdef list kept               # what the memo knows by address must not be freed meanwhile
    cdef int depth

    def __cinit__(self):
        self.memo, self.kept = {}, []

    def __dealloc__(self):
        PyMem_Free(self.out)

    cdef int reserve(self, size_t more) except -1:
        cdef void *grown
        if self.used + more > self.room:
            grown = PyMem_Realloc(self.out, (self.used + more) * 2 + 64)
            if grown is NULL:
                raise MemoryError()
            self.out, self.room = <uint8_t *>grown, (self.used + more) * 2 + 64
        return 0

    cdef int put_tag(self, uint8_t tag, uint64_t number) except -1:
        """A tag and a varint."""
        self.reserve(1 + VARINT_BYTES_MAX)
        self.out[self.used] = tag
        self.used += 1
        while number >= 0x80:
            self.out[self.used] = <uint8_t>(number | 0x80)
            self.used += 1
            number >>= 7
        self.out[self.used] = <uint8_t>number
        self.used += 1
        return 0

    cdef int put_bytes(self, const char *data, size_t length) except -1:
        self.reserve(length)
        memcpy(self.out + self.used, data, length)
        self.used += length
        return 0

    cdef int put_lone(self, uint8_t tag) except -1:
        self.reserve(1)
        self.out[self.used] = tag
        self.used += 1
        return 0

    cdef int put_text(self, uint8_t tag, value, const char *data, Py_ssize_t length) except -1:
        if length >= MEMO_FROM_BYTES:
            if self.seen(value):
                return 0
            self.remember(value)
        self.put_tag(tag, length)
        return self.put_bytes(data, length)

    cdef bint seen(self, value) except -1:
        """Write a reference if the value was met before."""
        number = self.memo.get(<size_t><void *>value)
        if number is None:
            return False
        self.put_tag(c'r', number)
        return True

    cdef int remember(self, value) except -1:
        self.memo[<size_t><void *>value] = len(self.kept)
        self.kept.append(value)
        return 0

    cdef int put(self, value) except -1:
        cdef Py_ssize_t length = 0
        cdef const char *data
        cdef double number
        kind = type(value)
        if kind is str:
            try:
                data = PyUnicode_AsUTF8AndSize(value, &length)
            except UnicodeEncodeError:
                return self.put_odd_text(value)
            return self.put_text(c's', value, data, length)
        if kind is int:
            return self.put_int(value)
        if value is None or value is True or value is False or value is Ellipsis:
            return self.put_lone(c'N' if value is None else c'T' if value is True else c'F' if value is False else c'E')
        if kind is float:
            number = value
            self.put_lone(c'd')
            return self.put_bytes(<const char *>&number, 8)
        if kind is bytes:
            return self.put_text(c'b', value, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        if kind is complex:
            self.put_lone(c'c')
            number = value.real
            self.put_bytes(<const char *>&number, 8)
            number = value.imag
            return self.put_bytes(<const char *>&number, 8)
        if self.seen(value):
            return 0
        if self.depth >= DEPTH_MAX:
            raise RecursionError(f"a value nested deeper than {DEPTH_MAX} levels cannot be stored in the safe form")
        self.depth += 1
        try:
            return self.put_container(value, kind)
        finally:
            self.depth -= 1

    cdef int put_odd_text(self, value) except -1:
        """A str with lone surrogates."""
        cdef bytes data = value.encode("utf-8", "surrogatepass")
        return self.put_text(c's', value, PyBytes_AS_STRING(data), len(data))

    cdef int put_int(self, value) except -1:
        cdef bytes data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        self.put_tag(c'i', len(data))
        return self.put_bytes(PyBytes_AS_STRING(data), len(data))

    cdef int put_container(self, value, kind) except -1:
        if kind is list or kind is set or kind is dict or kind is bytearray:
            self.remember(value)
        if kind is dict:
            self.put_tag(c'm', len(value))
            for key, item in (<dict>value).items():
                self.put(key)
                self.put(item)
        elif kind is bytearray:
            self.put_tag(c'a', len(value))
            self.put_bytes(PyByteArray_AS_STRING(value), PyByteArray_GET_SIZE(value))
        elif kind is list or kind is tuple or kind is set or kind is frozenset:
            self.put_tag(c'l' if kind is list else c't' if kind is tuple else c'S' if kind is set else c'Z', len(value))
            for item in value:
                self.put(item)
            if kind is tuple or kind is frozenset:
                # Also an empty one, so that the reader need not tell: only it may have been met again by its own members.
                self.remember(value)
        else:
            raise TypeError(f"{kind.__module__}.{kind.__qualname__} objects cannot be stored without pickle")
        return 0


def encode(value):
    """The safe form of a value.

    Raises TypeError for a type that is not plain builtin data, RecursionError beyond 500 levels; RuntimeError if the value
    changes meanwhile.
    """
    cdef _Encoder encoder = _Encoder.__new__(_Encoder)
    encoder.put_lone(MAGIC)
    encoder.put(value)
    return PyBytes_FromStringAndSize(<char *>encoder.out, encoder.used)


cdef class _Decoder:
    cdef const uint8_t *at
    cdef const uint8_t *end
    cdef list memo
    cdef int depth

    cdef int need(self, uint64_t length) except -1:
        if length > <uint64_t>(self.end - self.at):
            raise CorruptFrameError("the safe form of a value is cut short")
        return 0

    cdef uint64_t varint(self) except? 0xFFFFFFFFFFFFFFFF:
        cdef uint64_t value = 0
        cdef int shift = 0
        cdef uint8_t byte = 0x80
        while byte & 0x80:
            if shift >= 7 * VARINT_BYTES_MAX:
                raise CorruptFrameError("a length in the safe form of a value is too long")
            self.need(1)
            byte = self.at[0]
            self.at += 1
            value |= <uint64_t>(byte & 0x7F) << shift
            shift += 7
        return value

    cdef bytes take(self, uint64_t length):
        cdef bytes data
        self.need(length)
        data = PyBytes_FromStringAndSize(<const char *>self.at, length)
        self.at += length
        return data

    cdef object get(self):
        cdef uint8_t tag
        cdef uint64_t length
        cdef object value
        self.need(1)
        tag = self.at[0]
        self.at += 1
        if tag == c'N':
            return None
        if tag == c'T' or tag == c'F':
            return tag == c'T'
        if tag == c'E':
            return Ellipsis
        if tag == c'd':
            return self.get_double()
        if tag == c'c':
            value = self.get_double()
            return complex(value, self.get_double())
        length = self.varint()
        if tag == c's':
            return self.get_text(length)
        if tag == c'i':
            return int.from_bytes(self.take(length), "little", signed=True)
        if tag == c'r':
            if length >= <uint64_t>len(self.memo):
                raise CorruptFrameError(f"the safe form of a value refers to number {length}, which it does not have")
            return self.memo[length]
        if tag == c'b':
            value = self.take(length)
            if length >= MEMO_FROM_BYTES:
                self.memo.append(value)
            return value
        if tag == c'a':
            value = bytearray(self.take(length))
            self.memo.append(value)
            return value
        self.need(length)  # every member takes a byte
        if self.depth >= DEPTH_MAX:
            raise CorruptFrameError(f"the safe form of a value is nested deeper than {DEPTH_MAX} levels")
        self.depth += 1
        value = self.get_container(tag, length)
        self.depth -= 1
        return value

    cdef object get_double(self):
        cdef double number
        self.need(8)
        memcpy(&number, self.at, 8)
        self.at += 8
        return number

    cdef object get_text(self, uint64_t length):
        cdef object value
        self.need(length)
        value = PyUnicode_DecodeUTF8(<const char *>self.at, length, "surrogatepass")
        self.at += length
        if length >= MEMO_FROM_BYTES:
            self.memo.append(value)
        return value

    cdef object get_container(self, uint8_t tag, uint64_t length):
        cdef object value
        cdef list items
        cdef uint64_t index
        if tag == c'm':
            value = {}
            self.memo.append(value)
            for index in range(length):
                key = self.get()
                value[key] = self.get()
            return value
        if tag == c'l':
            items = []
            self.memo.append(items)
            for index in range(length):
                items.append(self.get())
            return items
        if tag == c'S':
            value = set()
            self.memo.append(value)
            for index in range(length):
                value.add(self.get())
            return value
        if tag == c't' or tag == c'Z':
            items = []
            for index in range(length):
                items.append(self.get())
            value = tuple(items) if tag == c't' else frozenset(items)
            self.memo.append(value)
            return value
        raise CorruptFrameError(f"tag {tag} in the safe form of a value is unknown")


def decode(bytes data not None):
    """The value of a safe form. Raises CorruptFrameError for anything that encode does not write."""
    cdef _Decoder decoder = _Decoder.__new__(_Decoder)
    decoder.at = <const uint8_t *>PyBytes_AS_STRING(data)
    decoder.end = decoder.at + PyBytes_GET_SIZE(data)
    decoder.memo = []
    decoder.need(1)
    if decoder.at[0] != MAGIC:
        raise CorruptFrameError("this is no value in the safe form")
    decoder.at += 1
    try:
        value = decoder.get()
    except (UnicodeDecodeError, TypeError) as error:  # TypeError: a list as a key
        raise CorruptFrameError(f"the safe form of a value is damaged: {error}") from None
    if decoder.at != decoder.end:
        raise CorruptFrameError("there is more behind the safe form of a value")
    return value
