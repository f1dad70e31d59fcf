"""The bytes of the log are those of docs/log_format.md, and every released version of them can be read."""

import os
import re
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_fixture import VERSIONS, dump

from spectral_alloc import CorruptLogError, ThermalDict, _log, verify
from spectral_alloc._record_writer import RecordWriter
from spectral_alloc.log_compaction import hints_in
from spectral_alloc.log_format import (
    FORMAT_VERSION,
    HEADER_BYTES,
    SEGMENT,
    Authenticator,
    Header,
    decode_key,
    encode_key,
)

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "log_format.md"
FIXTURES = sorted((HERE / "fixtures").glob("log_v*.zip"))


def unpacked(fixture: Path, path: Path) -> Path:
    """A fixture as a directory with the modes of a durable dict."""
    path.mkdir(mode=0o700)
    with zipfile.ZipFile(fixture) as archive:
        archive.extractall(path)
    return path


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("without", ["", "hint", "heat", "lock"])
def test_every_released_version_opens(fixture: Path, without: str, tmp_path: Path) -> None:
    """A kept store of each version has the contents it was made with, in their order, with and without its helper
    files."""
    path = unpacked(fixture, tmp_path / "d")
    for file in path.iterdir():
        if without and file.name.startswith(without):
            file.unlink()
    assert verify(path).is_whole
    with ThermalDict.open(path) as subject:
        assert list(subject.items()) == list(VERSIONS[fixture.stem].items())
        subject["more"] = 1
    with ThermalDict.open(path) as subject:
        assert list(subject.items()) == [*VERSIONS[fixture.stem].items(), ("more", 1)]


def test_there_is_a_fixture() -> None:
    """The test above reads something."""
    assert [path.stem for path in FIXTURES] == list(VERSIONS) == [f"log_v{n}" for n in range(1, FORMAT_VERSION + 1)]


def test_the_page_shows_what_is_written(tmp_path: Path) -> None:
    """The worked dump of the page is what a store of that one entry has."""
    found = re.search(r"^00  53 50.*?(?=^```)", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    assert found[0].strip() == dump(tmp_path / "d")


def test_an_unknown_version_is_refused_by_number(tmp_path: Path) -> None:
    """A header of version 3 with a right checksum raises an error that names both versions."""
    plain = Authenticator(None)
    data = bytearray(Header(SEGMENT, bytes(16), 0, (0, 0, 0)).pack(plain))
    data[8] = 3
    data[12:16] = bytes(4)
    from spectral_alloc._frame import crc32c

    data[12:16] = crc32c(bytes(data)).to_bytes(4, "little")
    with pytest.raises(CorruptLogError, match="format version 3; this release reads up to 2"):
        Header.parse(bytes(data), SEGMENT, plain, "log-000000")
    assert len(data) == HEADER_BYTES


@given(
    st.recursive(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.booleans()), st.tuples, max_leaves=4)
)
def test_keys_come_back(key: object) -> None:
    """A key of plain data is the same after encode_key and decode_key."""
    data, is_plain = encode_key(key)
    assert is_plain
    assert decode_key(data) == key
    assert type(decode_key(data)) is type(key)


@given(
    st.lists(st.tuples(st.binary(max_size=60), st.binary(max_size=20), st.sampled_from([0, 2, 4, 6])), min_size=1),
    st.integers(1, 1 << 40),
    st.integers(0, 1 << 20),
    st.booleans(),
)
def test_records_come_back(
    given_records: list[tuple[bytes, bytes, int]], sequence: int, unsettled: int, is_atomic: bool
) -> None:
    """A walk gives back what was written; all records of a batch but the last go on; elsewhere they are none."""
    salt, offset = _log.salt(bytes(16), 3), (1 << 21) + HEADER_BYTES
    writer = RecordWriter(salt, offset, sequence, offset - unsettled, is_atomic)
    for frame, key, flags in given_records:
        writer.add(_log.PUT, key, frame, flags, 7)
    writer.end()
    whole, lengths = writer.take()
    assert lengths == [_log.record_bytes(len(frame), len(key), 0) for frame, key, _ in given_records]
    walk = _log.walk(whole, offset, offset + len(whole), salt)
    assert (walk.status, walk.count, walk.damaged) == ("end", len(given_records), [])
    assert walk.last_sequence == writer.sequence == sequence + len(given_records)
    assert walk.hints == writer.hints
    assert [flags & 1 for _, _, flags, *_ in hints_in(walk.hints)] == [is_atomic] * (len(given_records) - 1) + [0]
    assert [key for *_, key in hints_in(walk.hints)] == [key for _, key, _ in given_records]
    assert walk.claimed == offset - unsettled
    for elsewhere in (
        _log.walk(whole, offset + 8, offset + 8 + len(whole), salt),
        _log.walk(whole, offset, offset + len(whole), salt + 1),
    ):
        assert (elsewhere.status, elsewhere.count) == ("bad", 0)


@given(st.binary(max_size=400))
def test_a_walk_over_anything_stays_inside(data: bytes) -> None:
    """Random bytes are no records; nothing is read beyond them."""
    salt = _log.salt(bytes(16), 0)
    walk = _log.walk(data, HEADER_BYTES, HEADER_BYTES + len(data), salt)
    assert walk.count == 0
    assert _log.find_record(data, 0, HEADER_BYTES, HEADER_BYTES + len(data), salt) is None


def test_files_are_private(tmp_path: Path) -> None:
    """The directory has mode 0700 and its files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        with ThermalDict.open(tmp_path / "d") as subject:
            subject["a"] = 1
    finally:
        os.umask(before)
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "d").iterdir()} == {0o600}
