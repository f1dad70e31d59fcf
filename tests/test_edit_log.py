"""The edit log: exact replay, torn tails, damage, full disks, compaction, and snapshots."""

import contextlib
import errno
import random
import threading
from pathlib import Path

import numpy
import pytest
from edit_logs import attach_faulty, reopened
from faults import FaultyFileSystem
from hypothesis import given
from hypothesis import strategies as st

from spectral_alloc import CorruptLogError, GenerativeSpace, LockedError, edit_log
from spectral_alloc._edit_journal import BLOCK_EDITS, BLOCK_HEADER_BYTES, block_at, decode_block, encode_edits
from spectral_alloc.edit_file import BESIDE, HEADER_BYTES
from spectral_alloc.edit_log import DURABILITIES, EditLog

LAST = 2**64 - 1
words = st.integers(0, LAST)
columns = st.lists(st.tuples(st.one_of(words, st.integers(1000, 1300)), words), min_size=1, max_size=60)


def arrays_of(edits: list[tuple[int, int]]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Two uint64 arrays of pairs."""
    pairs = numpy.array(edits, dtype=numpy.uint64).reshape(-1, 2)
    return numpy.ascontiguousarray(pairs[:, 0]), numpy.ascontiguousarray(pairs[:, 1])


def log_of(space: GenerativeSpace) -> EditLog:
    """The log of a space."""
    assert space._log is not None
    return space._log


@given(columns)
def test_a_block_gives_its_edits_back(edits: list[tuple[int, int]]) -> None:
    """In order, or sorted with edits of one address in order; sound as it is, and not with any changed byte."""
    addresses, raws = arrays_of(edits)
    block = encode_edits(addresses, raws, 8)
    assert block_at(block) == (len(block), 0)
    found, values, removed = decode_block(block)
    assert not removed.any()
    assert sorted(zip(found.tolist(), values.tolist(), strict=True)) == sorted(edits)
    assert dict(zip(found.tolist(), values.tolist(), strict=True)) == dict(edits)
    place = random.Random(len(block)).randrange(len(block))
    changed = bytearray(block)
    changed[place] ^= 0x10
    assert block_at(bytes(changed)) is None
    assert block_at(block[:-1]) is None


@pytest.mark.parametrize(
    ("name", "bytes_max"), [("progression", 8.01), ("near", 12.02), ("random", 15.5), ("repeated", 9.02)]
)
def test_an_edit_takes_at_most_16_bytes(name: str, bytes_max: float) -> None:
    """Whatever the addresses; random ones out of all 2**64 are the worst."""
    count = 20 * BLOCK_EDITS
    draw = numpy.random.default_rng(1)
    addresses = {
        "progression": numpy.arange(count, dtype=numpy.uint64) * numpy.uint64(2**40),
        "near": draw.integers(2**50, 2**50 + 2**32, count, dtype=numpy.uint64),
        "random": draw.integers(0, 2**64, count, dtype=numpy.uint64),
        "repeated": draw.integers(0, 200, count, dtype=numpy.uint64),
    }[name]
    assert len(encode_edits(addresses, draw.integers(0, 2**64, count, dtype=numpy.uint64), 8)) <= bytes_max * count


@pytest.mark.parametrize("cluster_bits", [0, 3, 12, 30])
def test_edits_of_clusters_are_sorted_and_those_of_one_address_keep_their_order(cluster_bits: int) -> None:
    """However unevenly the addresses lie in their span; the sort then goes through all their digits."""
    draw = numpy.random.default_rng(cluster_bits)
    corners = numpy.arange(600, dtype=numpy.uint64) << numpy.uint64(54)  # few of them, but with gaps of seven bytes
    addresses = draw.choice(corners, BLOCK_EDITS) + draw.integers(0, 1 << cluster_bits, BLOCK_EDITS, dtype=numpy.uint64)
    raws = numpy.arange(BLOCK_EDITS, dtype=numpy.uint64)
    found, values, _ = decode_block(encode_edits(addresses, raws, 8))
    order = numpy.argsort(addresses, kind="stable")
    assert found.tolist() == addresses[order].tolist()
    assert values.tolist() == raws[order].tolist()


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("values", ["float64", "float32", "uint64", "normal", range(-9, 9)], ids=str)
def test_what_was_written_comes_back(tmp_path: Path, durability: str, values: str | range) -> None:
    """Writes, overwrites, removals, scatters and slices of every kind of value, over two sessions."""
    path = tmp_path / "edits.log"
    space = GenerativeSpace(1, values=values).attach(path, durability)
    space[LAST], space[0], space[5], space[6] = 3, 1, 2, 7
    space[5] = 4
    del space[6]
    del space[12345]
    wanted = {LAST: 3, 0: 1, 5: 4}
    space.scatter([2**40, 2**63, 2**40], [5, 6, 7])
    space[100:110:3] = 9
    wanted |= {2**40: 7, 2**63: 6, **dict.fromkeys(range(100, 110, 3), 9)}
    copied = space.copy()
    space.detach()
    space[1] = 8  # in memory only
    assert reopened(path, values=values) == wanted
    space = GenerativeSpace(1, values=values).attach(path, durability)
    assert space == copied
    assert space.log_report().replayed_count >= len(wanted)
    space.clear_edits()
    space[3] = 1
    space.detach()
    assert reopened(path, values=values) == {3: 1}


def test_floats_come_back_to_the_bit(tmp_path: Path) -> None:
    """3.141592653589793 is not 3.1415927410125732; NaN payloads, minus zero and subnormals are kept."""
    raws = numpy.array([0x7FF8DEADBEEF0001, 1 << 63, 1, 0x400921FB54442D18], dtype=numpy.uint64)
    with GenerativeSpace(1).attach(tmp_path / "log") as space:
        space.scatter(range(4), raws.view(numpy.float64))
    with GenerativeSpace(1).attach(tmp_path / "log") as space:
        assert (space[:4].view(numpy.uint64) == raws).all()


def test_edits_made_before_go_to_a_new_log(tmp_path: Path) -> None:
    """A space with edits takes a new log; a log with edits takes only a space without."""
    space = GenerativeSpace(1)
    space[7] = 0.5
    space.attach(tmp_path / "log").detach()
    assert reopened(tmp_path / "log") == {7: 0.5}
    other = GenerativeSpace(1)
    other[8] = 0.25
    with pytest.raises(ValueError, match="has edits, and the space has 1 too"):
        other.attach(tmp_path / "log")
    assert dict(other.edits()) == {8: 0.25}


def test_a_log_belongs_to_one_space_at_a_time(tmp_path: Path) -> None:
    """Another seed, kind or use, a second log, and a file that is none are clear errors."""
    path = tmp_path / "log"
    space = GenerativeSpace(1).attach(path)
    space[1] = 2.0
    with pytest.raises(LockedError, match="another open space"):
        GenerativeSpace(1).attach(path)
    with pytest.raises(ValueError, match="has a log already"):
        space.attach(tmp_path / "other")
    space.detach()
    for wrong, part in ((GenerativeSpace(2), "seed"), (GenerativeSpace(1, values="uint64"), "kind of values")):
        with pytest.raises(ValueError, match=f"another {part}"):
            wrong.attach(path)
    for method in (space.sync, space.compact, space.log_report):
        with pytest.raises(ValueError, match="has no log"):
            method()
    for durability, seconds in (("often", 1.0), ("none", 0.0), ("none", float("nan"))):
        with pytest.raises(ValueError, match="must be"):
            GenerativeSpace(1).attach(tmp_path / "new", durability, interval_seconds=seconds)
    (tmp_path / "text").write_bytes(b"hello, this is not a log at all" * 9)
    with pytest.raises(CorruptLogError, match="not an edit log"):
        GenerativeSpace(1).attach(tmp_path / "text")
    damaged = bytearray(path.read_bytes())
    damaged[20] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(CorruptLogError, match="damaged in its header"):
        GenerativeSpace(1).attach(tmp_path / "damaged")


def logged_blocks(path: Path) -> list[dict[int, float]]:
    """Write five batches, each synced; the edits after each."""
    space = GenerativeSpace(1).attach(path, "none")
    states: list[dict[int, float]] = [{}]
    for batch in range(5):
        space.scatter([batch, 2**40 + batch, LAST - batch, 77], [float(batch)] * 4)
        if batch == 3:
            del space[0]
        space.sync()
        states.append(dict(space.edits()))
    space.detach()
    return states


def test_a_log_cut_anywhere_gives_what_was_complete(tmp_path: Path) -> None:
    """At every length of the file: the edits of whole blocks, in order; and it can be written on."""
    states = logged_blocks(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    seen = 0
    for length in range(len(data) + 1):
        path = tmp_path / "cut"
        path.write_bytes(data[:length])
        space = GenerativeSpace(1).attach(path, "none")
        state = dict(space.edits())
        while state != states[seen]:
            seen += 1
        assert path.stat().st_size <= max(length, HEADER_BYTES)
        if length % 50 == 0:
            space[5] = 5.0
            space.detach()
            assert reopened(path) == state | {5: 5.0}
        space.detach()
    assert seen == len(states) - 1


@pytest.mark.parametrize("is_closed", [True, False])
def test_no_changed_byte_gives_a_wrong_value(tmp_path: Path, is_closed: bool) -> None:
    """Damage is an error that names the offset; in the last block, a mark if the log was closed, that is cut off."""
    states = logged_blocks(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    if not is_closed:
        data = data[:-BLOCK_HEADER_BYTES]
    last_block_bytes = len(data) - data.rindex(b"SAE1")
    errors = cuts = 0
    for place in range(HEADER_BYTES, len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path = tmp_path / "changed"
        path.write_bytes(changed)
        space = GenerativeSpace(1)
        if place < len(data) - last_block_bytes:
            errors += 1
            with pytest.raises(CorruptLogError, match="is damaged at offset"):
                space.attach(path, "none")
            assert space.edit_count == 0
            space[1] = 1.0  # it goes on in memory
            assert path.read_bytes() == changed
        else:
            cuts += 1
            space.attach(path, "none")
            assert dict(space.edits()) == states[-1 if is_closed else -2]
            assert space.log_report().torn_bytes == last_block_bytes
        space.detach()
    assert errors > 3 * cuts > 0


def test_unsynced_blocks_that_a_power_cut_mixed_up_are_a_torn_tail(tmp_path: Path) -> None:
    """A hole in what was never synced, with sound blocks behind it, is no damage."""
    path = tmp_path / "log"
    space = GenerativeSpace(1).attach(path, "none")
    space[1] = 1.0
    space.sync()
    synced = path.stat().st_size
    for address in range(2, 5):
        space[address] = 2.0
        log_of(space).write()
    data = bytearray(path.read_bytes())
    space.detach()
    data[synced : synced + 20] = bytes(20)
    path.write_bytes(data)
    assert reopened(path) == {1: 1.0}
    assert path.stat().st_size == synced + BLOCK_HEADER_BYTES  # the mark of a log that was closed


@pytest.mark.parametrize("durability", ["none", "interval"])
def test_a_full_disk_refuses_and_forgets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """Writes go on until the journal is full, then raise before anything changes; with room all is written."""
    monkeypatch.setattr(edit_log, "JOURNAL_EDITS", 100)
    disk, path, space = FaultyFileSystem(), tmp_path / "log", GenerativeSpace(1)
    log = attach_faulty(space, path, disk, durability)
    space[0] = 0.5
    space.sync()
    disk.disk_bytes = 30
    address = 0

    def write_on() -> None:
        nonlocal address
        while address < 1000:
            address += 1
            space[address] = 1.0

    with pytest.raises(OSError, match="No space"):
        write_on()
    count = space.edit_count
    assert address == count >= 100
    assert not space.is_edited(address)
    with pytest.raises(OSError, match="No space") as full:
        space.scatter(range(2000, 2300), 1.0)
    made = space.edit_count - count
    assert full.value.__notes__ == [f"{made} of 300 edits were made, the others were not"]
    for attempt in (space.sync, space.detach):
        with pytest.raises(OSError, match="No space"):
            attempt()
    disk.heal()
    space[5000] = 2.0
    space.detach()
    assert log.report().appended_count == log.report().durable_count
    left = (*range(1, address), *range(2000, 2000 + made))
    assert reopened(path) == {0: 0.5, **dict.fromkeys(left, 1.0), 5000: 2.0}


def test_always_returns_only_what_is_durable(tmp_path: Path) -> None:
    """A failing sync raises from the write; the edit stays in memory and becomes durable with the next one."""
    disk, space = FaultyFileSystem(), GenerativeSpace(1)
    log = attach_faulty(space, tmp_path / "log", disk, "always")
    syncs = disk.calls["sync"]
    space[1] = 1.0
    assert disk.calls["sync"] == syncs + 1
    assert log.report().durable_count == 1
    disk.fail("sync", error=OSError(errno.EIO, "injected"), times=1)
    with pytest.raises(OSError, match="injected"):
        space[2] = 2.0
    assert log.report().durable_count == 1
    space.scatter([3, 4], [3.0, 4.0])
    assert log.report().durable_count == 4
    space.detach()
    assert reopened(tmp_path / "log") == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}


def test_threads_that_wait_share_a_sync(tmp_path: Path) -> None:
    """With "always", a sync that is under way serves all edits that wait for it."""
    disk, space = FaultyFileSystem(), GenerativeSpace(1)
    attach_faulty(space, tmp_path / "log", disk, "always")
    first, gate = threading.Event(), threading.Event()

    def hold() -> None:
        if not first.is_set():
            first.set()
            gate.wait(10)

    disk.before("sync", hold)
    before = disk.calls["sync"]
    threads = [threading.Thread(target=space.write, args=(address, 1.0)) for address in range(20)]
    threads[0].start()
    first.wait(10)
    for thread in threads[1:]:
        thread.start()
    while space.log_report().appended_count < 20:
        threading.Event().wait(0.001)
    gate.set()
    for thread in threads:
        thread.join()
    assert disk.calls["sync"] - before == 2
    space.detach()


def test_the_interval_makes_edits_durable(tmp_path: Path) -> None:
    """Without any further call, an edit is durable soon; the thread ends with the space."""
    space = GenerativeSpace(1).attach(tmp_path / "log", "interval", interval_seconds=0.01)
    space[1] = 1.0
    while space.log_report().durable_count < 1:
        threading.Event().wait(0.005)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "spectral_alloc edit log"]
    del space
    thread.join(10)
    assert not thread.is_alive()
    assert reopened(tmp_path / "log") == {1: 1.0}


def test_a_full_journal_is_written_by_the_thread_of_the_log(tmp_path: Path) -> None:
    """With "interval" a long scatter does not wait for the file, and the edits of one address stay in their order."""
    path = tmp_path / "log"
    space = GenerativeSpace(1).attach(path, "interval", interval_seconds=3600)
    addresses = numpy.tile(numpy.arange(1000, dtype=numpy.uint64), 400)
    values = numpy.arange(len(addresses), dtype=numpy.float64)
    for _ in range(3):
        space.scatter(addresses, values)
    while path.stat().st_size < 8 * (3 * len(addresses) - 2 * edit_log.JOURNAL_EDITS):
        threading.Event().wait(0.005)
    space.detach()
    last = len(addresses) - 1000
    assert reopened(path) == {address: float(last + address) for address in range(1000)}


def test_no_edit_is_lost_between_two_threads_that_write_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many_switches: None
) -> None:
    """A full journal is handed over while another thread takes it: once, and not again over what was taken."""
    monkeypatch.setattr(edit_log, "JOURNAL_EDITS", 64)
    for turn in range(20):
        space = GenerativeSpace(1).attach(tmp_path / f"log {turn}", "interval", interval_seconds=3600)
        log, is_over = log_of(space), threading.Event()

        def write_on(log: EditLog = log, is_over: threading.Event = is_over) -> None:
            while not is_over.is_set():
                log.write()

        thread = threading.Thread(target=write_on)
        thread.start()
        for start in range(0, 30_000, 1000):
            space.scatter(range(start, start + 1000), float(start))
        is_over.set()
        thread.join()
        for _ in range(3):
            log.write()
        assert log._journal.written_count == log._journal.appended_count == 30_000
        space.detach()


def test_compaction_keeps_the_edits_and_shortens_the_file(tmp_path: Path) -> None:
    """Also while others write; afterwards the log goes on in the new file."""
    path = tmp_path / "log"
    space = GenerativeSpace(1).attach(path, "none")
    for turn in range(20):
        space.scatter(range(0, 5000, 5), float(turn))
        del space[0:2500]
    space.sync()
    before = path.stat().st_size
    is_over = threading.Event()

    def write() -> None:
        for number in range(30_000):
            space[2**50 + number % 1000] = float(number)
        is_over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not is_over.is_set():
        space.compact()
    writer.join()
    space.compact()
    assert path.stat().st_size < before / 5
    space[1] = 1.0
    wanted = dict(space.edits())
    space.detach()
    assert reopened(path) == wanted
    assert [entry.name for entry in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(
    "method", ["open_existing", "create", "lock", "status", "write_at", "sync", "rename", "sync_directory", "read_at"]
)
@pytest.mark.parametrize("error", [OSError(errno.EIO, "injected"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("late", [False, True])
def test_a_compaction_that_fails_anywhere_loses_nothing(
    tmp_path: Path, method: str, error: BaseException, late: bool
) -> None:
    """Old or new file: the edits before and after the failure are all there, and the next compaction works."""
    for after in range(4):
        path = tmp_path / f"log{after}"
        disk, space = FaultyFileSystem(), GenerativeSpace(1)
        log = attach_faulty(space, path, disk)
        space.scatter(range(100), 1.0)
        disk.fail(method, error=error, after=after, times=1, late=late)
        disk.before("rename", lambda space=space: space.write(500, 5.0))
        with contextlib.suppress(OSError, KeyboardInterrupt):
            log.compact()
        disk.heal()
        space[1000] = 2.0
        space.sync()
        wanted = dict(space.edits())
        if after % 2:
            log.compact()
            assert not path.with_name(path.name + BESIDE).exists()
        space.detach()
        assert reopened(path) == wanted


def test_a_snapshot_is_a_log_of_its_own(tmp_path: Path) -> None:
    """Whole or not at all, with or without a log attached; attach takes it."""
    space = GenerativeSpace(1)
    space.scatter(range(0, 10**6, 7), 0.5)
    space.snapshot(tmp_path / "first")
    assert reopened(tmp_path / "first") == dict(space.edits())
    log = attach_faulty(space, tmp_path / "log", disk := FaultyFileSystem())
    space[1] = 3.0
    with pytest.raises(ValueError, match="is the log itself"):
        space.snapshot(tmp_path / "log")
    kept = (tmp_path / "first").read_bytes()
    disk.fail("write_at", error=OSError(errno.ENOSPC, "injected"), after=1)
    with pytest.raises(OSError, match="injected"):
        log.snapshot(tmp_path / "first")
    assert (tmp_path / "first").read_bytes() == kept
    disk.heal()
    space.snapshot(tmp_path / "first")
    assert reopened(tmp_path / "first")[1] == 3.0
    space.detach()


def test_a_file_of_format_1_is_read_for_ever(tmp_path: Path) -> None:
    """A log that was written when format 1 was made has the edits that it had, and its blocks are as the page says."""
    data = (Path(__file__).parent / "data" / "edits_format_1.log").read_bytes()
    path = tmp_path / "log"
    path.write_bytes(data)
    wanted = {999: 3.141592653589793, 0: 0.0, LAST: -0.0, 2**40: 1e300, **dict.fromkeys(range(100, 200, 10), 0.5)}
    assert reopened(path, seed="fixture") == wanted
    first = "53414531 03c22ea8 4000000000000000 e703000000000000 0000000000000000 01000000 00000008 182d4454fb210940"
    assert data[HEADER_BYTES : HEADER_BYTES + 48] == bytes.fromhex(first)
