"""Counts the bytes of CPython's small-object arenas.

Noun: the *counter* of core/arena.h, one for the process, installed when this module is first imported and never removed.

Threads: the GIL. Cost: reading the count is one load.
"""
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc


cdef extern from "arena.h":
    ctypedef struct sa_arena_counter:
        int64_t bytes

    void sa_arena_install(sa_arena_counter *counter)


cdef sa_arena_counter *counter = <sa_arena_counter *>calloc(1, sizeof(sa_arena_counter))
if counter is NULL:
    raise MemoryError()
sa_arena_install(counter)


def arena_bytes():
    """Bytes that small-object arenas took less what they gave back since this module was imported."""
    return counter.bytes
