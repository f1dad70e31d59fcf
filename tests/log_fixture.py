"""Makes the store of the newest format version that tests/fixtures keeps; run as a program with a directory."""

import sys
from pathlib import Path
from typing import Any

from spectral_alloc import ThermalDict, durable, frame_dictionary, log

LOG_ID = bytes(range(16))
CONTENTS: dict[Any, Any] = {
    "text": "spectral",
    7: [1, 2.5, None, True, -(2**70)],
    ("a", 1): {"nested": {"list": [[], ()]}, "bytes": b"\x00\xff"},
    b"key": {1, 2, 3},
    "long": "abc" * 500,
}
#: What a store of version 2 has besides: small values that share a dictionary.
RECORDS: dict[Any, Any] = {
    f"record {number}": {"id": number, "name": f"customer {number}", "city": "Braunschweig", "note": "paid in full" * 2}
    for number in range(80)
}
VERSIONS = {"log_v1": CONTENTS, "log_v2": CONTENTS | RECORDS}


def make(path: Path) -> None:
    """Make the store."""
    kept = durable.secrets.token_bytes
    durable.secrets.token_bytes = lambda count: LOG_ID[:count]
    try:
        with ThermalDict.open(path) as subject:
            subject.update(CONTENTS | {"text": "old", "gone": 1})
            subject.sync()
            subject._journal.log.seal()  # type: ignore[union-attr]  # it is durable
            subject["text"] = CONTENTS["text"]
            del subject["gone"]
            subject.update(dict(list(RECORDS.items())[:60]))
            subject.sync()
            frame_dictionary.TRAIN_AT_OFFERED = (60, 61)
            frame_dictionary.SAMPLE_BYTES_MIN = 500
            frame_dictionary.DICTIONARY_BYTES_MIN = 500
            assert subject._tiers.codec.train()
            subject.update(RECORDS)
    finally:
        durable.secrets.token_bytes = kept


def dump(path: Path) -> str:
    """The log of a dict with one entry, as docs/log_format.md shows it."""
    kept = durable.secrets.token_bytes
    durable.secrets.token_bytes = lambda count: LOG_ID[:count]
    try:
        with ThermalDict.open(path, codec="raw") as subject:
            subject["k"] = "value"
    finally:
        durable.secrets.token_bytes = kept
    data = (path / log.log_name(0)).read_bytes()
    return "\n".join(f"{at:02x}  {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
