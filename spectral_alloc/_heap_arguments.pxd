# What callers give a heap, as C has it. Inline, since parsing arguments is most of what a call costs; what is refused is
# slow, so the refusals are imported where they are.
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_AsUnsignedLong, PyLong_Check
from cpython.number cimport PyIndex_Check, PyNumber_Index
from libc.stdint cimport int64_t, uint64_t

from c_heap cimport *


cdef inline uint64_t address_of(object address) except? 0:
    """An address as C has it; what can be none is refused. A long has 64 bits here, and converts faster than a long long."""
    try:
        return PyLong_AsUnsignedLong(address)
    except (OverflowError, TypeError):
        from spectral_alloc.memory_errors import refuse_address
        refuse_address(address)


cdef inline uint64_t block_of(object address) except? 0:
    """As address_of, and not that of a page of a generated block, which is nobody's but the heap's."""
    cdef uint64_t number = address_of(address)
    if sa_address_axis(number) == SA_AXIS_PAGE:
        from spectral_alloc.memory_errors import refuse
        refuse(SA_UNKNOWN, number)
    return number


cdef inline object whole(object number, str name):
    """A number as an int; what is none, a float above all, is refused by the name of its argument."""
    if PyLong_Check(number):
        return number
    if not PyIndex_Check(number):
        raise TypeError(f"{name} must be an int, not {number!r}")
    return PyNumber_Index(number)


cdef inline int64_t small_of(object number, str name) except? -1:
    """As whole, for what is small; -1 for all that C cannot hold."""
    cdef int overflow
    cdef int64_t found = PyLong_AsLongLongAndOverflow(number if PyLong_Check(number) else whole(number, name), &overflow)
    return -1 if overflow else found


cdef inline bint bounded(uint64_t block_bytes, object offset, object length, uint64_t *at, uint64_t *count) except -1:
    """Offset and length as C has them, if they lie in the block."""
    offset, length = whole(offset, "offset"), whole(length, "size")
    if not 0 <= offset <= block_bytes or not 0 <= length <= block_bytes - offset:
        return False
    at[0], count[0] = offset, length
    return True
