"""verify(path) and repair(path): what is damaged in a durable dict, and how to go on with all that is not.

Both look at every byte and unpickle nothing, so they need no trust. ``verify`` changes nothing and may run beside a
writer; ``repair`` needs the lock. It copies what is undamaged out of damaged segments and renames those to
``damaged-...``.
"""

import errno
import os
from dataclasses import dataclass

from spectral_alloc import _log
from spectral_alloc._frame import FORMULA, parse
from spectral_alloc.durable import DurableSettings, checked_place, is_place_of_log, open_log
from spectral_alloc.errors import CorruptFrameError, CorruptLogError
from spectral_alloc.file_system import REAL_FILE_SYSTEM, FileSystem
from spectral_alloc.frame import FORMULA_GROWTH_MAX, FrameCodec
from spectral_alloc.log import Log, Record, log_name
from spectral_alloc.log_compaction import hints_in
from spectral_alloc.log_dictionaries import load_dictionaries
from spectral_alloc.log_format import decode_key, encode_key
from spectral_alloc.log_recovery import Damage, Recovery, hints_of
from spectral_alloc.log_segment import LogSegment
from spectral_alloc.segments import OFFSET_BITS, OFFSET_MASK

__all__ = ["CheckReport", "repair", "verify"]


@dataclass(frozen=True)
class CheckReport:
    """What verify or repair found.

    Attributes: ``entries`` (keys whose values are whole), ``damage`` (tuple of Damage), ``torn_bytes`` (at the end of
    the log, written but never finished: no damage), ``segments``.
    """

    entries: int
    damage: tuple[Damage, ...]
    torn_bytes: int
    segments: int

    @property
    def is_whole(self) -> bool:
        """Is there no damage?"""
        return not self.damage

    def __str__(self) -> str:
        lines = [f"{self.entries} entries in {self.segments} segments, {len(self.damage)} damaged places"]
        lines += [f"  {damage}" for damage in self.damage]
        if self.torn_bytes:
            lines.append(f"  {self.torn_bytes} bytes at the end were never finished: no damage")
        return "\n".join(lines)


class OpaqueKey(bytes):
    """The bytes of a key that only unpickling would give back."""


def readable_key(data: bytes) -> object:
    """The key of such bytes, or an OpaqueKey."""
    try:
        return decode_key(data)
    except KeyError:
        return OpaqueKey(data)


def place_of_log(path: "str | os.PathLike[str]", file_system: FileSystem) -> str:
    """The absolute path of a durable dict; FileNotFoundError if there is none, ValueError for an empty path."""
    place = checked_place(path, True)
    assert place is not None
    if not is_place_of_log(place, file_system):
        raise FileNotFoundError(errno.ENOENT, "no durable dict is kept here", place)
    return place


def verify(
    path: "str | os.PathLike[str]", *, key: bytes | str | None = None, file_system: FileSystem = REAL_FILE_SYSTEM
) -> CheckReport:
    """Read every byte of a durable dict and return what is damaged.

    Parameters: path, key (of a dict that has one), file_system (for tests). Raises FileNotFoundError, also where no
    durable dict is kept, PermissionError, UntrustedError for a wrong key, CorruptLogError where nothing can be read.
    Cost: one pass over the files. Threads: any; a writer may be at work.

    >>> import tempfile; from spectral_alloc import ThermalDict
    >>> with tempfile.TemporaryDirectory() as t:
    ...     with ThermalDict.open(t + "/d") as d: d["a"] = 1
    ...     print(verify(t + "/d"))
    1 entries in 1 segments, 0 damaged places
    """
    settings = DurableSettings(place_of_log(path, file_system), key=key, is_readonly=True)
    found, _ = open_log(settings, None, file_system, decode_key=readable_key, is_checking=True)
    name_damage(found)
    report = made_report(found)
    found.log.abandon()
    return report


def repair(
    path: "str | os.PathLike[str]", *, key: bytes | str | None = None, file_system: FileSystem = REAL_FILE_SYSTEM
) -> CheckReport:
    """Make a damaged durable dict usable again without what is damaged; returns what that was.

    A key whose last value is damaged is gone. Where not even the key can be told, and no hint file tells it, an older
    value of that key may come back; the report names the place. Raises as ``verify`` does, and LockedError.

    >>> import tempfile; from spectral_alloc import ThermalDict
    >>> with tempfile.TemporaryDirectory() as t:
    ...     with ThermalDict.open(t + "/d") as d: d["a"] = 1
    ...     repair(t + "/d").is_whole
    True
    """
    settings = DurableSettings(place_of_log(path, file_system), key=key)
    found, lock = open_log(
        settings, None, file_system, decode_key=readable_key, is_checking=True, is_repairing=True
    )
    try:
        name_damage(found)
        report = made_report(found)
        if found.damage:
            rewrite(found)
        found.log.close()
        return report
    finally:
        found.log.abandon()
        del lock


def check_frame(codec: FrameCodec, frame: bytes) -> None:
    """Raise CorruptFrameError unless a frame is whole; what would take far more memory than the file is not grown."""
    for kind, _, _, raw_lengths, payload in parse(frame):
        if kind == FORMULA and sum(raw_lengths) > FORMULA_GROWTH_MAX * len(memoryview(payload)):
            return  # its checksum is right
    codec.decode(frame)


def name_damage(found: Recovery) -> None:
    """Find the keys of damaged records in hint files, check every frame, and drop what is damaged from the index."""
    codec = FrameCodec()
    load_dictionaries(codec, found)
    named: list[Damage] = []
    for damage in found.damage:
        key, place = damage.key, place_of(damage)
        if key is None:
            key = key_in_hints(found.log, damage)
        if key is not None:
            at = found.index.place_of(key)
            if at is None or at <= place:
                found.index.forget(key)
        named.append(Damage(damage.file, damage.offset, damage.length, key, damage.what))
    for key, place, frame_bytes, _, _ in found.index.entries():
        try:
            check_frame(codec, found.log.read(place, frame_bytes))
        except (CorruptFrameError, EOFError) as error:
            segment = found.log._segments[place >> OFFSET_BITS]
            assert isinstance(segment, LogSegment)
            segment.is_damaged = True
            named.append(Damage(log_name(segment.number), place & OFFSET_MASK, frame_bytes, key, str(error)))
            found.index.forget(key)
    found.damage = named


def place_of(damage: Damage) -> int:
    """The place of a damaged record."""
    return int(damage.file.removeprefix("log-"), 16) << OFFSET_BITS | damage.offset


def key_in_hints(log: Log, damage: Damage) -> object:
    """The key of the record at a damaged place, if the segment's hint file is whole."""
    segment = log._segments.get(place_of(damage) >> OFFSET_BITS)
    if not isinstance(segment, LogSegment):
        return None
    for offset, _, _, _, _, data in hints_in(hints_of(log, segment) or b""):
        if offset == damage.offset and data:
            return readable_key(data)
    return None


def made_report(found: Recovery) -> CheckReport:
    """The report about what was found."""
    return CheckReport(len(found.index.entries()), tuple(found.damage), found.torn_bytes, len(found.log._segments))


def rewrite(found: Recovery) -> None:
    """Copy what is live and whole out of damaged segments, and put those aside."""
    log = found.log
    damaged = [segment for segment in log.log_segments if segment.is_damaged]
    numbers = {segment.number for segment in damaged}
    # In the order of the keys, since a birth that was damaged cannot be told from one that was not.
    for _, place, _, birth, flags in found.index.entries():
        if place >> OFFSET_BITS in numbers:
            copy_record(log, place, birth, flags)
    for segment in damaged:
        copy_tombstones(log, segment, found)
    for damage in found.damage:
        if damage.key is not None and found.index.place_of(damage.key) is None:
            # An older value in another segment must not come back.
            data = bytes(damage.key) if isinstance(damage.key, OpaqueKey) else encode_key(damage.key)[0]
            log.commit([Record(_log.TOMBSTONE, data, b"", _log.MOVED)], moving=True, batch=False)
    if log._active is not None:
        log.sync()
    file_system = log._file_system
    for segment in damaged:
        assert segment.path is not None
        file_system.rename(segment.path, os.path.join(log.directory, f"damaged-{segment.number:06x}"))
        log._segments.pop(segment.number)
    file_system.sync_directory(log.directory)


def copy_record(log: Log, place: int, birth: int, flags: int) -> None:
    """Write a record again at the end of the log."""
    segment = log._segments[place >> OFFSET_BITS]
    assert isinstance(segment, LogSegment)
    _, frame, key, _ = log._read_parts(segment, place & OFFSET_MASK)
    kind = _log.REGROWN if flags & _log.IS_REGROWN else _log.PUT
    flags = flags & ~(_log.CONTINUES | _log.IS_REGROWN) | _log.MOVED
    log.commit([Record(kind, key, frame, flags, birth)], moving=True, batch=False)


def copy_tombstones(log: Log, segment: LogSegment, found: Recovery) -> None:
    """Write the tombstones of a damaged segment again, for keys that have no newer value."""
    for _, kind, _, _, _, data in hints_in(b"".join(segment.hints)):
        if kind == _log.TOMBSTONE and found.index.place_of(readable_key(data)) is None:
            log.commit([Record(_log.TOMBSTONE, data, b"", _log.MOVED)], moving=True, batch=False)
    for place, frame_bytes, birth in found.index.dictionaries:
        if place >> OFFSET_BITS == segment.number:
            try:
                frame = log.read(place, frame_bytes)
            except (CorruptFrameError, CorruptLogError):
                continue
            log.commit([Record(_log.DICTIONARY, b"", frame, _log.MOVED, birth)], moving=True, batch=False)
