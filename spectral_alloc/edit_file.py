"""The file of an edit log: its header, and files that are made as a whole, by compaction and for snapshots.

Words: *complete* is how many bytes of a file were there, on stable storage, when it got its name; a file that is made
*beside* another has the other's name and an ending until it takes its place.

    header 64 B   magic 8 | format 4 | kind 4 | low 8 | span 8 |
                  fingerprint of the key 16 | version 4 | complete 8 | CRC-32C 4

Invariants:
1. What lies below complete was never a tail that was being written: damage there is damage, wherever it is.
2. A file beside another is locked as long as it is written. It is removed if it does not get there; one that is not
   locked was left behind by a process that stopped, and is removed by the next.
3. No snapshot takes the place of a file that is locked, that is, of the log of an open space.

Threads: pure, but for the file system. Cost: 50 ns and at most 16 bytes for each edit of a whole file.
"""

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from spectral_alloc._edit_journal import BLOCK_HEADER_BYTES, BLOCK_MAGIC, block_at, encode_edits
from spectral_alloc._frame import crc32c
from spectral_alloc._generator import Generator
from spectral_alloc._overlay import Overlay
from spectral_alloc.errors import CorruptLogError, LockedError
from spectral_alloc.file_system import FileSystem, OpenFile
from spectral_alloc.space_key import VERSION

__all__ = [
    "BESIDE",
    "HEADER_BYTES",
    "checked_header",
    "file_beside",
    "header_of",
    "is_marked",
    "is_named",
    "later_durable",
    "save_snapshot",
    "seal",
    "write_edits",
]

MAGIC = b"SAEDITS\x00"
FORMAT = 1
HEADER = struct.Struct("<8sIIqQ16sIQ")
HEADER_BYTES = HEADER.size + 4
SNAPSHOT_EDITS = 1 << 18
WORD_MASK = (1 << 64) - 1
BESIDE = ".compacting"


def header_of(generator: Generator, complete: int = 0) -> bytes:
    """Return the header of a log of a space: one that begins empty, or one that is made as a whole."""
    key = b"".join(word.to_bytes(8, "little") for word in generator.key)
    fingerprint = hashlib.blake2b(key, digest_size=16).digest()
    span = generator.span & WORD_MASK
    fields = HEADER.pack(MAGIC, FORMAT, generator.kind, generator.low, span, fingerprint, VERSION, complete)
    return fields + crc32c(fields).to_bytes(4, "little")


def checked_header(path: str, found: bytes, generator: Generator) -> int:
    """Return ``complete`` of a header, 0 if the log began empty.

    Errors: CorruptLogError for a file that is no log or is damaged here, ValueError for that of another space.
    """
    if len(found) < HEADER_BYTES or found[:8] != MAGIC:
        raise CorruptLogError(f"{path} is not an edit log: it begins with {found[:8]!r}")
    if crc32c(found[:-4]).to_bytes(4, "little") != found[-4:]:
        raise CorruptLogError(f"{path} is damaged in its header, at offset 0")
    _, form, *meaning, complete = HEADER.unpack(found[:-4])
    if form != FORMAT:
        raise ValueError(f"{path} has format {form}, and this library reads format {FORMAT}")
    wanted = list(HEADER.unpack(header_of(generator)[:-4])[2:-1])
    if meaning != wanted:
        part = "kind of values" if meaning[:3] != wanted[:3] else "seed"
        raise ValueError(f"{path} is the log of a space with another {part}")
    return int(complete)


def later_durable(data: bytes, start: int) -> int:
    """Return the largest ``durable`` of the sound blocks that begin in data after a place, 0 if there are none."""
    largest = 0
    place = data.find(BLOCK_MAGIC, start)
    while place >= 0:
        found = block_at(data, place)
        if found is not None:
            largest = max(largest, found[1])
        place = data.find(BLOCK_MAGIC, place + 1 if found is None else place + found[0])
    return largest


def is_marked(file: OpenFile, end: int, file_system: FileSystem) -> bool:
    """Whether the blocks up to a place end with a mark for all that is before it."""
    start = end - BLOCK_HEADER_BYTES
    if start < HEADER_BYTES:
        return False
    return block_at(file_system.read_at(file.fd, BLOCK_HEADER_BYTES, start)) == (BLOCK_HEADER_BYTES, start)


def is_named(file_system: FileSystem, path: str, file: OpenFile) -> bool:
    """Whether a path stands for an open file."""
    try:
        return os.path.samestat(file_system.status(path), file_system.status_of(file.fd))
    except FileNotFoundError:
        return False


@contextmanager
def file_beside(path: str, file_system: FileSystem) -> Iterator[OpenFile]:
    """A new file, locked, that is to take the place of ``path``; it is removed unless it has got there.

    Errors: LockedError if another space is making one, OSError.
    """
    beside = path + BESIDE
    try:
        stale = OpenFile(file_system, file_system.open_existing, beside)
    except FileNotFoundError:
        pass
    else:
        if not file_system.lock(stale.fd):
            raise LockedError(f"{beside} is being written by another space, here or in another process")
        file_system.remove(beside)
        del stale
    file = OpenFile(file_system, file_system.create, beside)
    try:
        if not file_system.lock(file.fd) or not is_named(file_system, beside, file):
            raise LockedError(f"{beside} was taken by another space, here or in another process")
        yield file
    except BaseException:
        with suppress(OSError):
            file_system.remove(beside)
        raise


def write_edits(file: OpenFile, overlay: Overlay, generator: Generator, file_system: FileSystem) -> int:
    """Write the present edits to a new file, behind a header to come, and return the end.

    Writers of the space wait for the first third of the time.
    """
    addresses, raws = overlay.edits()
    end = HEADER_BYTES
    for start in range(0, len(addresses), SNAPSHOT_EDITS):
        piece = slice(start, start + SNAPSHOT_EDITS)
        blocks = encode_edits(addresses[piece], raws[piece], generator.value_bytes)
        file_system.write_at(file.fd, [blocks], end)
        end += len(blocks)
    return end


def seal(file: OpenFile, generator: Generator, end: int, file_system: FileSystem) -> None:
    """Write the header of a file that is complete up to its end, and return when all is on stable storage."""
    file_system.write_at(file.fd, [header_of(generator, end)], 0)
    file_system.sync(file.fd)


def replaced_file(path: str, file_system: FileSystem) -> OpenFile | None:
    """The file that a snapshot is to replace, locked so that nobody attaches it meanwhile; None if there is none.

    Errors: LockedError if it is the log of an open space, whatever name that has for it; OSError.
    """
    real = os.path.realpath(path)
    try:
        if not stat.S_ISREG(file_system.status(real).st_mode):
            return None
        file = OpenFile(file_system, file_system.open_reading, real)
    except FileNotFoundError:
        return None
    if not file_system.lock(file.fd):
        raise LockedError(f"{path} is the log of another open space, here or in another process")
    return file


def save_snapshot(path: str, overlay: Overlay, generator: Generator, file_system: FileSystem) -> None:
    """Write the present edits to a file; it is there as a whole, or what was there before stays.

    Errors: LockedError if it is the log of an open space, OSError.
    """
    replaced = replaced_file(path, file_system)
    with file_beside(path, file_system) as file:
        seal(file, generator, write_edits(file, overlay, generator, file_system), file_system)
        # it may have come while the edits were written
        replaced = replaced or replaced_file(path, file_system)
        file_system.rename(path + BESIDE, path)
    del replaced
    file_system.sync_directory(os.path.dirname(path))
