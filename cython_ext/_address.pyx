"""Addresses from Python: one number or many, checked to be whole and from 0 to 2**64 - 1.

Nouns: a *word* is such a number; `name` is what the messages call it.

    one:  int or __index__ -> uint64_t           many:  array or sequence of such -> uint64 array, C order

Invariant: nothing is rounded, cut off or taken modulo 2**64; what is no word raises and is named, with its position.
Threads: stateless. Cost: one 10 ns; an array of unsigned integers none or one copy, of signed ones one pass more.
"""
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.long cimport PyLong_CheckExact
from libc.stdint cimport uint64_t

import operator

import numpy

cdef extern from "Python.h":
    # without "except", since its error is turned into another one
    unsigned long long PyLong_AsUnsignedLongLong(object number) noexcept

WORD_COUNT = 1 << 64


cdef uint64_t word_of(object value, str name) except? 0:
    """The word that a number is, or IndexError outside the words, TypeError for what is no whole number."""
    cdef uint64_t word
    if PyLong_CheckExact(value):
        word = PyLong_AsUnsignedLongLong(value)
        if word != <uint64_t>-1 or not PyErr_Occurred():
            return word
        PyErr_Clear()
    return word_of_slow(value, name)


cdef uint64_t word_of_slow(object value, str name) except? 0:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}") from None
    if not 0 <= number < WORD_COUNT:
        raise IndexError(f"{name} must be from 0 to 2**64 - 1, got {number}")
    return number


def as_word(value, name="address"):
    """The number as an int from 0 to 2**64 - 1.

    Parameters: value (int or what has ``__index__``), name (for messages).
    Errors: IndexError outside, TypeError for what is no whole number; both name it. Cost: O(1).

    >>> as_word(999), as_word(2**64 - 1)
    (999, 18446744073709551615)
    >>> as_word(-1)
    Traceback (most recent call last):
    IndexError: address must be from 0 to 2**64 - 1, got -1
    """
    return word_of(value, name)


def as_words(values, name="addresses"):
    """An array of integers, or a sequence of them, as a uint64 array in C order and in its shape.

    Parameters: values (any shape), name (for messages).
    Errors: IndexError for the first negative or too large one, with its position; TypeError for other types.
    Cost: nothing for uint64 arrays in C order, else a pass or two. Threads: stateless.

    >>> as_words([3, 2**64 - 1])
    array([                   3, 18446744073709551615], dtype=uint64)
    """
    if not isinstance(values, numpy.ndarray):
        try:
            converted = numpy.asarray(values)
        except (ValueError, OverflowError):
            converted = numpy.asarray(values, dtype=object)
        if converted.dtype.kind not in "iu":
            converted = numpy.asarray(values, dtype=object)
        values = converted
    if values.dtype.kind == "O":
        return as_words_slow(values, name)
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        position = int(numpy.argmax(values.reshape(-1) < 0))
        raise IndexError(f"{name} must be from 0 to 2**64 - 1, got {values.reshape(-1)[position]} at position {position}")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got an array of {values.dtype}")
    if values.dtype == numpy.int64 and values.dtype.isnative and values.flags.c_contiguous:
        return values.view(numpy.uint64)
    return values.astype(numpy.uint64, order="C", copy=not (values.dtype == numpy.uint64 and values.flags.c_contiguous))


def as_words_slow(objects, name):
    """The same for an array of Python objects, each judged alone."""
    words = numpy.empty(objects.shape, dtype=numpy.uint64)
    flat = words.reshape(-1)
    for position, value in enumerate(objects.flat):
        try:
            flat[position] = word_of(value, name)
        except (IndexError, TypeError) as error:
            raise type(error)(f"{error} at position {position}") from None
    return words
