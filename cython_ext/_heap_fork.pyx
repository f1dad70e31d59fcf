"""Forks: the child of a fork must find no arena half changed by a thread that it does not have. Truth: core/heap.h.

Nouns: *heap* is a HeapCore. Layout: a weak set of all that live.
Invariant: between the two hooks every arena of every heap is locked by the forking thread, so no other thread is inside one.
Threads: the hooks run in the forking thread, with the GIL; whoever holds an arena's lock does not wait for the GIL.
Cost: twelve locks for each heap at a fork.
"""
import weakref

from c_heap cimport sa_heap, sa_heap_lock_all, sa_heap_unlock_all


cdef class Lockable:
    """A heap as the hooks see it."""


_heaps = weakref.WeakSet()
_locked = []


def keep_through_forks(Lockable heap not None):
    """Lock a heap around every fork from now on, as long as it lives."""
    _heaps.add(heap)


def before_fork():
    """Wait until no thread is inside an arena, and keep them out."""
    cdef Lockable heap
    _locked.extend(_heaps)
    for heap in _locked:
        sa_heap_lock_all(heap.locked)


def after_fork():
    """Let them in again, in parent and child."""
    cdef Lockable heap
    for heap in _locked:
        sa_heap_unlock_all(heap.locked)
    _locked.clear()
