"""Formulas: blocks of bytes that a few bytes give back, bit for bit (docs/formula.md).

Words: a *block* is any bytes; its *formula* regrows it; a *hint* says what blocks may have been made from.

ThermalDict and SpectralMemory look for a formula of everything that they are about to compress (frame.py, codec
"formula"). Nobody has to call this module; hints find more.

Threads: safe. Cost: a search in vain 2 to 15 us whatever the size of the block, growing 1 to 50 GB/s.
"""

import operator
import sys
from typing import TYPE_CHECKING, Any

from spectral_alloc import _formula
from spectral_alloc._formula import FORMULA_VERSION, RAW_BYTES_MAX

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from spectral_alloc.space_key import Key

__all__ = ["FORMULA_VERSION", "RAW_BYTES_MAX", "find", "hint", "permuted_expressions", "regrow"]

MERSENNE_SEED_MAX = 2**32 - 1
WORD_BYTES = 8
WIDE_BYTES = 16


def find(block: "Buffer") -> bytes | None:
    """Return a formula that gives exactly these bytes, or None where none is known.

    Parameters: block (bytes-like, contiguous; must not change meanwhile; below 64 bytes and above 1 GiB there is none).
    Errors: MemoryError where there is no room to grow the block once for the comparison.
    Cost: in vain some microseconds whatever the size, a hit 2 to 4 times what growing takes. Threads: any.

    >>> import numpy
    >>> squares = numpy.arange(100_000) ** 2
    >>> formula = find(squares)
    >>> len(formula), regrow(formula, squares.nbytes) == squares.tobytes()
    (7, True)
    >>> find(b"nothing that anybody could foresee " + numpy.random.bytes(1000)) is None
    True
    """
    return _formula.find(block)


def regrow(formula: "Buffer", raw_bytes: int) -> bytes:
    """Return the block of a formula.

    Parameters: formula (what ``find`` returned), raw_bytes (the length of the block).
    Errors: CorruptFrameError for anything else, before memory is taken for the block.
    Cost: linear in the block, 1 to 50 GB/s. Threads: any; without the GIL from 256 KiB on.

    >>> regrow(find(b"abc" * 1000), 3000) == b"abc" * 1000
    True
    """
    return _formula.grow(formula, raw_bytes)


def hint(*sources: Any) -> None:
    """Tell what blocks may have been made from, so that they are found.

    Parameters: sources, each a seed (int: of numpy's ``default_rng``, of ``np.random.seed`` and of a GenerativeSpace;
    str or bytes: of a GenerativeSpace), a GenerativeSpace, a Permutation, or a numpy Generator over PCG64, which means
    the arrays drawn from now on. What follows a block that was found is found too. The 1,024 latest are kept.
    Errors: TypeError for anything else, ValueError for a negative seed; then none of the sources counts.
    Cost: some 20 us each. Threads: any.

    >>> import numpy
    >>> from spectral_alloc import formula
    >>> block = numpy.random.default_rng(20_250_101).random(10_000).tobytes()
    >>> formula.find(block) is None
    True
    >>> formula.hint(20_250_101)
    >>> len(formula.find(block))
    35
    """
    keys: list[Key] = []
    expressions: list[bytes] = []
    for source in sources:
        found_keys, found_expressions = _made_from(source)
        keys += found_keys
        expressions += found_expressions
    for expression in expressions:
        _formula.remember_expression(expression)
    for key in keys:
        _formula.remember_key(key)


def permuted_expressions(key: "Key", last: int, start: int) -> list[bytes]:
    """The expressions of a permutation of 0 .. last for a key, from position start on, in 8 and in 4 bytes each."""
    tail = _words(key) + _varint(last) + _varint(start)
    widths = (WORD_BYTES, 4) if last < 2**32 else (WORD_BYTES,)
    return [bytes([_formula.PERMUTED, width]) + tail for width in widths]


def _made_from(source: Any) -> tuple[list["Key"], list[bytes]]:
    """Keys to try, and expressions of which blocks may begin with."""
    from spectral_alloc.generative_space import GenerativeSpace
    from spectral_alloc.permutation import Permutation
    from spectral_alloc.space_key import seed_key

    if isinstance(source, GenerativeSpace):
        return [source.generator.key], [_formula.space_expression(source.generator, 0, 1)]
    if isinstance(source, Permutation):
        return [], permuted_expressions(source.key, source.n - 1, 0)
    if isinstance(source, str | bytes):
        return [seed_key(source)], []
    state = _pcg_state(source)
    if state is not None:
        return [], _pcg_expressions(*state)
    if isinstance(source, bool) or not hasattr(type(source), "__index__"):
        raise TypeError(
            "a hint is a seed, a GenerativeSpace, a Permutation, or a numpy Generator over PCG64 "
            f"(of others, give the seed), not {type(source).__name__}"
        )
    return [seed_key(source)], _seed_expressions(operator.index(source))


def _seed_expressions(seed: int) -> list[bytes]:
    """Of the generators of numpy that take this seed."""
    if seed < 0:
        raise ValueError(f"numpy takes no seeds below 0, got {seed}")
    import numpy

    state = _pcg_state(numpy.random.default_rng(seed))
    found = _pcg_expressions(*state) if state is not None else []
    if seed <= MERSENNE_SEED_MAX:
        forms = (_formula.NOISE_DOUBLE, _formula.NOISE_RAW)
        found += [bytes([_formula.MERSENNE, form]) + _varint(seed) + _varint(0) for form in forms]
    return found


def _pcg_state(source: Any) -> tuple[int, int] | None:
    """State and increment of a numpy Generator over PCG64; None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(source, numpy.random.Generator):
        return None
    state = source.bit_generator.state
    if state["bit_generator"] != "PCG64":
        return None
    return state["state"]["state"], state["state"]["inc"]


def _pcg_expressions(state: int, increment: int) -> list[bytes]:
    tail = state.to_bytes(WIDE_BYTES, "little") + increment.to_bytes(WIDE_BYTES, "little")
    forms = (_formula.NOISE_DOUBLE, _formula.NOISE_RAW, _formula.NOISE_FLOAT)
    return [bytes([_formula.PCG, form]) + tail for form in forms]


def _words(words: "Key") -> bytes:
    return b"".join(word.to_bytes(WORD_BYTES, "little") for word in words)


def _varint(number: int) -> bytes:
    text = bytearray()
    while number >= 0x80:
        text.append(number & 0x7F | 0x80)
        number >>= 7
    text.append(number)
    return bytes(text)
