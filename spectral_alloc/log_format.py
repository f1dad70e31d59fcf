"""The bytes of the log's files: segment headers, hint files, keys, and the MAC that binds each piece to its place.

    log-000000     segment: header 96 bytes, then records (core/log_record.h)
    hint-000000    what the index needs of a sealed segment: header 96 bytes, then hints (_log.pyx)
    heat           what the last close knew about the use of the entries: header 96 bytes, then rows
    lock           flock of the one writer

    header  | magic 8 | version 2 | flags 2 | crc32c 4 | log id 16 | number 8 | three numbers of 8 each | MAC 32 |

docs/log_format.md has the grammar and a worked dump.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

from spectral_alloc import _safe
from spectral_alloc._frame import crc32c
from spectral_alloc.errors import CorruptFrameError, CorruptLogError, UntrustedError

__all__ = [
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "HINT",
    "MAC_BYTES",
    "SEGMENT",
    "Authenticator",
    "Header",
    "decode_key",
    "encode_key",
]

FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
SEGMENT = b"SPECLOG\n"
HINT = b"SPECHNT\n"
HEAT = b"SPECHOT\n"
FIELDS = struct.Struct("<8sHHI16sQQQQ")
MAC_BYTES = 32
HEADER_BYTES = FIELDS.size + MAC_BYTES
CRC_OFFSET = 12
CRC_END = 16
KEYED = 1
KEY_BYTES_MIN = 16


class Authenticator:
    """Makes and checks the MACs of one log: HMAC-SHA256, or nothing without a key.

    Parameters: key (at least 16 bytes, or a str of as many in UTF-8; None for a log without MACs). Raises TypeError,
    ValueError. Cost: 1 us and 1 ns a byte.

    >>> Authenticator(b"0123456789abcdef").mac_bytes, Authenticator(None).mac_bytes
    (32, 0)
    """

    def __init__(self, key: bytes | str | None) -> None:
        if isinstance(key, str):
            key = key.encode()
        if key is not None and not isinstance(key, bytes):
            raise TypeError(f"key must be bytes or str, not {type(key).__name__}")
        if key is not None and len(key) < KEY_BYTES_MIN:
            raise ValueError(f"key must have at least {KEY_BYTES_MIN} bytes, not {len(key)}")
        self._key = key
        self.mac_bytes = MAC_BYTES if key is not None else 0

    @property
    def is_keyed(self) -> bool:
        """Is there a key?"""
        return self._key is not None

    def mac(self, *parts: bytes | memoryview) -> bytes:
        """The MAC over some parts, b"" without a key."""
        if self._key is None:
            return b""
        made = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            made.update(part)
        return made.digest()

    def record_mac(self, prefix: bytes, offset: int, head: bytes, frame: bytes | memoryview, key: bytes) -> bytes:
        """The MAC of a record; ``prefix`` names log and segment."""
        return self.mac(prefix, offset.to_bytes(8, "little"), head, frame, key)

    def is_right(self, mac: bytes | memoryview, *parts: bytes | memoryview) -> bool:
        """Compare a MAC in constant time; always right without a key."""
        return self._key is None or hmac.compare_digest(mac, self.mac(*parts))


@dataclass(frozen=True)
class Header:
    """The header of a file of the log.

    Attributes: ``magic``, ``log_id`` (16 random bytes), ``number`` (of the segment), ``numbers`` (segment: number and
    end of
    the segment before it, first sequence; hint: end and last sequence of the segment, bytes of hints; heat: 0, 0,
    bytes of
    rows).
    """

    magic: bytes
    log_id: bytes
    number: int
    numbers: tuple[int, int, int]

    @property
    def prefix(self) -> bytes:
        """What the MACs of the records of this segment begin with."""
        return self.magic + self.log_id + self.number.to_bytes(8, "little")

    def pack(self, authenticator: Authenticator, body: bytes = b"") -> bytes:
        """The bytes of the header; checksum and MAC cover ``body`` too."""
        flags = KEYED if authenticator.is_keyed else 0
        fields = FIELDS.pack(self.magic, FORMAT_VERSION, flags, 0, self.log_id, self.number, *self.numbers)
        mac = authenticator.mac(fields, body) or bytes(MAC_BYTES)
        crc = crc32c(body, crc32c(mac, crc32c(fields)))
        return fields[:CRC_OFFSET] + crc.to_bytes(4, "little") + fields[CRC_END:] + mac

    @classmethod
    def parse(
        cls, data: bytes, magic: bytes, authenticator: Authenticator, name: str, body: bytes | memoryview = b""
    ) -> "Header":
        """The header at the beginning of ``data``.

        Raises CorruptLogError for damage and for a version that is not known, UntrustedError where a key is missing,
        is not
        wanted, or is not the one that the file was written with.
        """
        if len(data) < HEADER_BYTES:
            raise CorruptLogError(f"{name} ends within its header")
        found, version, flags, crc, log_id, number, *numbers = FIELDS.unpack_from(data)
        mac = data[FIELDS.size : HEADER_BYTES]
        fields = data[:CRC_OFFSET] + bytes(4) + data[CRC_END : FIELDS.size]
        if found != magic or crc != crc32c(body, crc32c(mac, crc32c(fields))):
            raise CorruptLogError(f"{name} is damaged at offset 0: its header is not what was written")
        if version not in READABLE_VERSIONS:
            raise CorruptLogError(f"{name} has format version {version}; this release reads up to {FORMAT_VERSION}")
        if bool(flags & KEYED) != authenticator.is_keyed:
            missing = "no key= was given" if flags & KEYED else "a key= was given, and it was written without one"
            raise UntrustedError(f"{name} cannot be trusted: {missing}")
        if not authenticator.is_right(mac, fields, body):
            raise UntrustedError(f"{name} was not written with the key= that was given")
        first, second, third = numbers
        return cls(magic, log_id, number, (first, second, third))


def encode_key(key: object) -> tuple[bytes, bool]:
    """The bytes of a key, and whether they are plain builtin data (else the caller pickles it).

    >>> encode_key("a"), encode_key((1, 2))[1], encode_key(print)
    ((b'sa', True), True, (b'', False))
    """
    if type(key) is str:
        return b"s" + key.encode("utf-8", "surrogatepass"), True
    if type(key) is bytes:
        return b"b" + key, True
    try:
        return b"o" + _safe.encode(key), True
    except TypeError:
        return b"", False


def decode_key(data: bytes) -> object:
    """The key of such bytes; CorruptFrameError if there is none, KeyError for a pickled one."""
    if data[:1] == b"s":
        return data[1:].decode("utf-8", "surrogatepass")
    if data[:1] == b"b":
        return data[1:]
    if data[:1] == b"p":
        raise KeyError(data[:1])
    key = _safe.decode(data[1:]) if data[:1] == b"o" else []
    try:
        hash(key)
    except TypeError:
        raise CorruptFrameError(f"no key is stored as {data[:40]!r}") from None
    return key
