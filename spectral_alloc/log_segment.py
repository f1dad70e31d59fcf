"""One segment file of the durable log: its header, its accounts, and the hints that are collected while it is
written."""

from collections.abc import Callable

from spectral_alloc import _log
from spectral_alloc.file_system import FileSystem
from spectral_alloc.log_format import Authenticator, Header
from spectral_alloc.segment import Segment

__all__ = ["LogSegment", "hint_path"]


def hint_path(segment_path: str) -> str:
    """The path of a segment's hint file.

    >>> hint_path("/d/log-000003")
    '/d/hint-000003'
    """
    directory, _, name = segment_path.rpartition("/")
    return f"{directory}/hint-{name.removeprefix('log-')}"


class LogSegment(Segment):
    """A segment with a header.

    Attributes: ``header``, ``salt`` (of the checksums), ``settled_bytes`` (an fsync has covered the file up to here),
    ``hints``
    (of its records up to ``hinted_bytes``, dropped when the hint file is written), ``tombstone_bytes``,
    ``dictionary_bytes`` (never released),
    ``is_damaged`` (some record cannot be read: never compacted), ``is_suspect`` (an fsync failed: what it should have
    covered must be written again elsewhere).
    """

    def __init__(
        self,
        header: Header,
        path: str,
        capacity_bytes: int,
        file_system: FileSystem,
        opener: Callable[[str], int] | None = None,
    ) -> None:
        self.header = header
        self.salt = _log.salt(header.log_id, header.number)
        self.settled_bytes = 0
        self.hints: list[bytes] = []
        self.hinted_bytes = 0
        self.has_hint_file = False
        self.held = 0
        self.tombstone_bytes = 0
        self.dictionary_bytes = 0
        self.last_sequence = header.numbers[2]
        self.is_damaged = False
        self.is_suspect = False
        super().__init__(header.number, path, capacity_bytes, file_system, opener)

    @property
    def held_bytes(self) -> int:
        """Bytes of heads and frames that were ever live; keys and tombstones are not accounted."""
        return self.held

    def is_dead(self) -> bool:
        """Say whether the file can go: no live frame, no tombstone and no dictionary is in it."""
        return self.dead_bytes >= self.held and not (self.tombstone_bytes or self.dictionary_bytes or self.is_damaged)

    def mac_checker(self, authenticator: Authenticator) -> "Callable[[int, bytes, bytes, bytes, bytes], bool] | None":
        """What a walk asks whether the MAC of a record of this segment is right; None without a key."""
        if not authenticator.is_keyed:
            return None
        prefix = self.header.prefix

        def is_right(offset: int, head: bytes, frame: bytes, key: bytes, mac: bytes) -> bool:
            return authenticator.is_right(mac, prefix, offset.to_bytes(8, "little"), head, frame, key)

        return is_right
