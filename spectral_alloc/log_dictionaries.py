"""The compression dictionaries of a durable dict: records of kind DICTIONARY, before the frames that need them.

Words: a *copy* is one record with a dictionary. There are two of each, since a damaged one would cost every value
that was compressed with it.

    frame of such a record    part 0: the dictionary; part 1: mean raw and stored bytes of a value, two doubles

A number is never given to a second dictionary, also when the first was lost: a frame does not say what it was
compressed with but by that number.
"""

from struct import Struct
from typing import TYPE_CHECKING

from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.frame import FrameCodec
from spectral_alloc.frame_dictionary import DICTIONARY_ID_MAX

if TYPE_CHECKING:
    from spectral_alloc.frame_dictionary import FrameDictionaries
    from spectral_alloc.log_recovery import Recovery

__all__ = ["COPIES", "dictionary_frame", "load_dictionaries"]

COPIES = 2
MEANS = Struct("<dd")
RAW = FrameCodec("raw")


def dictionary_frame(dictionaries: "FrameDictionaries", dictionary_id: int) -> bytes:
    """The frame of a record that keeps a dictionary."""
    content, *means = dictionaries.content_of(dictionary_id)
    return RAW.encode([content, MEANS.pack(*means)], [1, 1])


def load_dictionaries(codec: FrameCodec, found: "Recovery") -> set[int]:
    """Make what a log has known to a codec; returns the numbers of those that have all their copies."""
    dictionaries = codec.dictionaries
    copies: dict[int, list[list[bytes]]] = {}
    for place, frame_bytes, dictionary_id in found.index.dictionaries:
        if not 0 < dictionary_id <= DICTIONARY_ID_MAX:
            continue  # not ours: no frame can name it
        whole = copies.setdefault(dictionary_id, [])
        try:
            content, means = map(bytes, RAW.decode(found.log.read(place, frame_bytes)))
        except (CorruptFrameError, OSError, ValueError):
            continue
        if len(means) == MEANS.size:
            whole.append([content, means])
    complete = set()
    for dictionary_id, whole in sorted(copies.items()):
        dictionaries.reserve(dictionary_id)
        if not whole:
            continue
        raw_mean, stored_mean = MEANS.unpack(whole[0][1])
        try:
            dictionaries.adopt(dictionary_id, whole[0][0], raw_mean, stored_mean)
        except (ValueError, ArithmeticError):
            continue
        if len(whole) >= COPIES:
            complete.add(dictionary_id)
    return complete
