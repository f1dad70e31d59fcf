"""How a durable dict writes values and keys, and what it may read: the trust boundary.

Words: plain builtin data is a *graph stream* (_graph_stream.pyx) or in the *safe* form (_safe.pyx), and reading either
runs no code; *pickled* is everything else; a directory is *trusted* when its owner said so (``trust=True``) or when a
key (``key=``) proves who wrote it.

Only a trusted directory is ever unpickled from, and only for a trusted one anything is pickled.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from spectral_alloc import _safe, serializer
from spectral_alloc._graph_stream import GRAPH_VERSION, read_graph, write_graph
from spectral_alloc._shadows import digest_bytes
from spectral_alloc.errors import UntrustedError
from spectral_alloc.log_format import decode_key, encode_key

__all__ = ["ValueForm", "digest_of"]

DIGEST_BYTES = 16
SAFE_MARK = bytes([_safe.SAFE_MAGIC])
GRAPH_MARK = bytes([GRAPH_VERSION])
WAY_OUT = (
    "give key= (a secret that proves who wrote the files) or trust=True (only you can write there) "
    "to store it by pickle"
)


def digest_of(parts: Sequence[Any]) -> bytes:
    """A digest of serialised parts, by which this process notices an edit. Cost: 0.1 ns a byte of one part."""
    if len(parts) == 1:
        return digest_bytes(bytes(parts[0]))
    made = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        view = memoryview(part).cast("B")
        made.update(len(view).to_bytes(8, "little"))
        made.update(view)
    return made.digest()


class ValueForm:
    """Serialises values and keys as far as the trust goes.

    Parameters: is_trusted (pickles may be read and written), is_safe (write nothing by pickle: codec="safe").

    >>> form = ValueForm(is_trusted=False, is_safe=False)
    >>> form.loads(form.dumps([1, 2])[0])
    [1, 2]
    """

    def __init__(self, is_trusted: bool, is_safe: bool) -> None:
        self.is_trusted = is_trusted
        self.may_pickle = is_trusted and not is_safe

    def dumps(self, value: Any) -> tuple[list[Any], list[int]]:
        """Parts and item sizes of a value; TypeError or pickle.PicklingError if it cannot be stored."""
        if self.may_pickle:
            return serializer.dumps(value, portable=True)
        stream = write_graph(value, True)
        if stream is not None:
            return [stream], [1]
        try:
            return [_safe.encode(value)], [1]
        except TypeError as error:
            raise TypeError(f"{error}: {WAY_OUT}") from None

    def loads(self, parts: Sequence[Any]) -> Any:
        """The value of such parts; UntrustedError where that would unpickle from a directory that is not trusted."""
        kind = parts[0][:1]
        if kind == SAFE_MARK:
            return _safe.decode(bytes(parts[0]))
        if kind == GRAPH_MARK:
            return read_graph(parts[0])
        self._require_trust("a value")
        return serializer.loads(parts)

    def is_pickled(self, parts: Sequence[Any]) -> bool:
        """Does reading these parts need trust?"""
        return parts[0][:1] not in (SAFE_MARK, GRAPH_MARK)

    def key_bytes(self, key: object) -> bytes:
        """The bytes of a key; TypeError if it cannot be stored."""
        data, is_plain = encode_key(key)
        if is_plain:
            return data
        if not self.may_pickle:
            kind = type(key)
            raise TypeError(f"{kind.__module__}.{kind.__qualname__} keys cannot be stored without pickle: {WAY_OUT}")
        return b"p" + b"".join(serializer.dumps(key, portable=True)[0])

    def key_of(self, data: bytes) -> object:
        """The key of such bytes; CorruptFrameError, UntrustedError."""
        if data[:1] == b"p":
            self._require_trust("a key")
            return serializer.loads([data[1:]])
        return decode_key(data)

    def _require_trust(self, what: str) -> None:
        if not self.is_trusted:
            raise UntrustedError(
                f"the directory has {what} that was stored by pickle, and reading it could run any code: "
                "pass trust=True if only you can write there, or the key= it was written with"
            )
