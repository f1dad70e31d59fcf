"""Shadows: a cold value that was read and not changed leaves again without being written."""

import errno
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from spectral_alloc import Residency, ThermalDict
from spectral_alloc._iteration import stored_cells_after
from spectral_alloc._shadows import Shadows, digest_bytes
from spectral_alloc.frame import FrameCodec

WRITER_SECONDS = 20.0
COUNT = 9_000
WORDS = [f"word{number * 7919 % 1000}" for number in range(300)]


def record(number: int) -> dict[str, Any]:
    """A record like its neighbours."""
    draw = random.Random(number)
    return {"number": number, "text": " ".join(draw.choices(WORDS, k=60)), "marks": [draw.random() for _ in range(4)]}


def cold_keys(subject: ThermalDict, count: int) -> list[int]:
    """Keys of cold values, which were never read."""
    return [key for key in subject if subject.where(key) is Residency.COLD][:count]


def assert_disk_adds_up(subject: ThermalDict) -> None:
    """What the store takes for live is what cells and shadows refer to, no more and no less."""
    tiers = subject._tiers

    def difference_bytes() -> int:
        _, cells = stored_cells_after(subject, 0, 10 * COUNT)
        places = [place for place in map(tiers.ledger.place_of, cells) if place is not None]
        return sum(frame_bytes for _, frame_bytes in places) + tiers.shadows.frame_bytes - tiers.store.live_bytes

    # The background writer may be between writing frames and telling their cells.
    latest = time.monotonic() + WRITER_SECONDS
    while (difference := difference_bytes()) != 0 and time.monotonic() < latest:
        time.sleep(0.01)
    assert difference == 0
    subject.check()


@pytest.fixture
def subject() -> Iterator[ThermalDict]:
    """A dict of records, most of them cold, whose codec has its dictionary."""
    made = ThermalDict.open(memory_limit=3_000_000)
    for number in range(COUNT):
        made[number] = record(number)
    made._tiers.dear_read_seconds = float("inf")  # however slow the machine is
    made._tiers.codec.train()
    assert made._tiers.codec._dictionaries.current is not None
    for number in range(COUNT):  # once more, with the dictionary
        made[number] = record(number)
    yield made
    made.close()


def test_unchanged_values_are_not_written_again(subject: ThermalDict) -> None:
    """Thousands of cold values read once push each other out, and next to nothing is encoded or written for that."""
    keys = cold_keys(subject, 5_000)
    before, encoded = subject._tiers.store.write_count, subject.stats().codecs["zstd_dictionary"]["frames"]
    promotions = subject.stats().promotions
    for turn in range(2):
        for key in keys[turn::2]:
            assert subject[key] == record(key)
    assert len(subject._tiers.shadows) > 0
    assert_disk_adds_up(subject)
    # What leaves for the first time is encoded, and written in its turn; all that were cold and read are not.
    first_time = COUNT - len(keys)
    assert subject._tiers.store.write_count - before <= first_time
    assert subject.stats().codecs["zstd_dictionary"]["frames"] - encoded <= first_time
    assert subject.stats().promotions - promotions == len(keys) > 4_000


def test_values_in_use_come_to_warm_where_reads_are_dear(subject: ThermalDict) -> None:
    """Values that are read again and again do not rest on a slow disk: from the third time they are compressed anew."""
    keys = cold_keys(subject, 3_000)
    encoded = []
    for dear_seconds in (float("inf"), -1.0):
        subject._tiers.dear_read_seconds = dear_seconds
        before = subject.stats().codecs["zstd_dictionary"]["frames"]
        for _ in range(2):
            for key in keys:
                assert subject[key] == record(key)
        encoded.append(subject.stats().codecs["zstd_dictionary"]["frames"] - before)
    assert encoded[1] > encoded[0] + 2_000
    assert_disk_adds_up(subject)


def test_changed_values_are_written(subject: ThermalDict) -> None:
    """An edit in place, small or large, of a value with a shadow is never lost, whatever happens around it."""
    keys = cold_keys(subject, 3_000)
    for key in keys:
        subject[key]["marks"][-1] += 1
    for key in cold_keys(subject, 4_000):
        assert subject[key]["number"] == key
    for key in keys:
        expected = record(key)
        expected["marks"][-1] += 1
        assert subject[key] == expected
    assert_disk_adds_up(subject)


def test_deleted_and_overwritten_values_give_up_their_frames(subject: ThermalDict) -> None:
    """After deletions nothing of them is live on disk; an overwritten value comes back as it was written."""
    for key in cold_keys(subject, 300):
        assert subject[key]["number"] == key
    assert len(subject._tiers.shadows) > 0
    hot = [key for key in subject if subject.where(key) is Residency.HOT]
    for key in hot[::2]:
        subject[key] = {"new": key}
    for key in hot[1::2]:
        del subject[key]
    assert_disk_adds_up(subject)
    for key in cold_keys(subject, 3_000):
        assert subject[key]["number"] == key
    assert [subject[key] for key in hot[::2]] == [{"new": key} for key in hot[::2]]
    subject.clear()
    assert (subject._tiers.store.live_bytes, len(subject._tiers.shadows)) == (0, 0)


def test_shadows_are_limited(subject: ThermalDict) -> None:
    """A lower limit is reached as new ones come; the frames of those pushed out are released."""
    keys = iter(cold_keys(subject, 4_000))
    shadows = subject._tiers.shadows
    while len(shadows) < 50:
        subject[next(keys)]
    shadows.limit(20 * 80)
    assert shadows.count_max == 20
    for _ in range(100):
        subject[next(keys)]
        if shadows.count_max == 20:
            assert len(shadows) < 50
        assert_disk_adds_up(subject)
        shadows.limit(20 * 80)
    assert len(shadows) <= 20
    shadows.limit(0)
    for _ in range(30):
        subject[next(keys)]
        shadows.limit(0)
    assert len(shadows) == 0
    assert_disk_adds_up(subject)


def test_a_full_disk_takes_the_frames_of_shadows(subject: ThermalDict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk refuses, shadows are given up first, and the write is tried again."""
    for key in cold_keys(subject, 100):
        subject[key]
    tiers, append = subject._tiers, subject._tiers.store.append
    assert len(tiers.shadows) > 0

    def refuse(frames: list[bytes], *, moving: bool = False) -> list[int]:
        if len(tiers.shadows) > 0:
            raise OSError(errno.ENOSPC, "full")
        return append(frames, moving=moving)

    monkeypatch.setattr(tiers.store, "append", refuse)
    assert tiers.spill(1)
    assert len(tiers.shadows) == 0
    assert subject.stats().events == {}
    assert_disk_adds_up(subject)


def test_compaction_gives_up_shadows_in_its_way(subject: ThermalDict) -> None:
    """A segment that is mostly dead can go although values in RAM had their frames in it."""
    for key in cold_keys(subject, 200):
        subject[key]
    shadows = subject._tiers.shadows
    count = len(shadows)
    assert subject._tiers.forsake({1 << 20}, 40) == 0
    assert len(shadows) == count > 0
    segments = {subject._tiers.ledger.place_of(cell)[0] >> 40 for cell in map(subject._find, cold_keys(subject, COUNT))}
    assert subject._tiers.forsake(segments, 40) == count
    assert_disk_adds_up(subject)
    for key in range(0, COUNT, 5):
        assert subject[key] == record(key)


def walk(number: int) -> np.ndarray:
    """64 KB that hardly compress."""
    return np.random.default_rng(number).normal(size=8192).cumsum()


def test_large_arrays_rest_and_edits_of_them_do_not() -> None:
    """Cold arrays that are read are not written again; those edited in place, at either end, are, and come back."""
    with ThermalDict.open(memory_limit=2_000_000) as arrays:
        for number in range(100):
            arrays[number] = walk(number)
        written, latest = -1, time.monotonic() + WRITER_SECONDS
        while arrays._tiers.store.written_bytes != written:  # at first the background writer may have some left
            written = arrays._tiers.store.written_bytes
            for number in range(100):
                assert np.array_equal(arrays[number], walk(number))
            assert time.monotonic() < latest
        for number in range(100):
            arrays[number][-(number % 2)] += 1
        for number in range(100):
            expected = walk(number)
            expected[-(number % 2)] += 1
            assert np.array_equal(arrays[number], expected)
        assert arrays._tiers.store.written_bytes > written + 70 * 40_000
        assert_disk_adds_up(arrays)


@pytest.mark.parametrize("length", [70, 1100])
def test_digests_differ_where_bytes_do(length: int) -> None:
    """Every flipped bit, every zero added or cut, every exchange of words gives another digest."""
    data = FrameCodec().encode([random.Random(5).randbytes(length)], [1])
    seen = {digest_bytes(data)}
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            seen.add(digest_bytes(bytes(changed)))
    assert len(seen) == 1 + 8 * len(data)
    assert len({digest_bytes(bytes(zeros)) for zeros in range(2 * length)}) == 2 * length
    orders = ("abcd", "bacd", "cdab", "abdc", "dcba")
    texts = ["".join(word * (length // 8) for word in order).encode() for order in orders]
    assert len({digest_bytes(text) for text in texts}) == len(orders)


def test_an_empty_table_answers() -> None:
    """Nothing is there, nothing is given up."""
    shadows = Shadows()
    assert (len(shadows), shadows.frame_bytes, shadows.resident_bytes, shadows.forsake()) == (0, 0, 0, 0)
