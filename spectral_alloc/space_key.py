"""Keys from seeds: three 64-bit words, hashed, so that spaces of different seeds have nothing to do with each other.

Words: a *seed* is what a user names a space by; its *key* is what the function works with; a *purpose* keeps the keys
of a permutation or a sorted space apart from those of the space with the same seed.

    seed    int: "i", two's complement, little-endian, as short as it goes; str: "s", UTF-8; bytes: "b", as they are
    key     BLAKE2b of that, 24 bytes, personalised "spectral_alloc/1", keyed with the purpose: 3 little-endian words

Frozen as version 1. Threads: stateless. Cost: a microsecond.
"""

import hashlib
import operator
from typing import SupportsIndex

__all__ = ["VERSION", "Key", "Seed", "normal_seed", "seed_key"]

VERSION = 1
PERSON = b"spectral_alloc/1"
KEY_BYTES = 24
WORD_BYTES = 8

Seed = SupportsIndex | str | bytes
Key = tuple[int, int, int]


def normal_seed(seed: Seed) -> int | str | bytes:
    """Return a seed as a plain int, str or bytes.

    Errors: TypeError for other types; a bool is one of them, since it is rather a forgotten argument.

    >>> normal_seed("ada"), normal_seed(-5)
    ('ada', -5)
    >>> normal_seed(1.5)
    Traceback (most recent call last):
    TypeError: seed must be an int, str or bytes, got 1.5 of type float
    """
    if isinstance(seed, str):
        return str(seed)
    if isinstance(seed, bytes):
        return bytes(seed)
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an int, str or bytes, got {seed!r} of type {type(seed).__name__}")
    return operator.index(seed)


def seed_bytes(seed: Seed) -> bytes:
    """Return what is hashed for a seed: different for any two seeds that are not equal."""
    plain = normal_seed(seed)
    if isinstance(plain, str):
        return b"s" + plain.encode("utf-8", "surrogatepass")
    if isinstance(plain, bytes):
        return b"b" + plain
    return b"i" + plain.to_bytes(plain.bit_length() // 8 + 1, "little", signed=True)


def seed_key(seed: Seed, purpose: str = "") -> Key:
    """Return the three words of a seed's key.

    Parameters: seed (int of any size, str or bytes), purpose (what the key is for, at most 64 bytes).
    Errors: TypeError for another type of seed. Cost: one hash. Threads: stateless.

    >>> [hex(word) for word in seed_key(1337)]
    ['0xe157c9440e92a9b8', '0x78f52c35aa608fe3', '0xd5afd20c2b5d75e8']
    """
    digest = hashlib.blake2b(seed_bytes(seed), digest_size=KEY_BYTES, person=PERSON, key=purpose.encode()).digest()
    first, second, third = (
        int.from_bytes(digest[at : at + WORD_BYTES], "little") for at in range(0, KEY_BYTES, WORD_BYTES)
    )
    return first, second, third
