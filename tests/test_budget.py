"""The limit: after every call the ledger is within it, or nothing that could leave is left in RAM."""

import json
import random
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from memory_cage import children_environment, python
from tiny import assert_within_budget

from spectral_alloc import Residency, ThermalDict, _census

MB = 1_000_000
GROWTH_SCRIPT = Path(__file__).with_name("memory_growth.py")
# Reads of other keys within which a change of a value must have been noticed.
NOTICED_WITHIN = 5_000

Make = Callable[..., ThermalDict]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A factory of dicts with a limit; all are checked and closed at the end, and leave no file."""
    made: list[ThermalDict] = []

    def make_dict(limit: int | str, **settings: Any) -> ThermalDict:
        made.append(ThermalDict.open(memory_limit=limit, spill_dir=tmp_path, **settings))
        return made[-1]

    yield make_dict
    for subject in made:
        if not subject.closed:
            subject.check()
            subject.close()
    assert list(tmp_path.iterdir()) == []


def record(number: int) -> dict[str, Any]:
    """A closed value of about 1 kB."""
    return {"id": number, "text": f"record {number} " * 30, "values": [number + i / 7 for i in range(16)]}


def ledger_of(subject: ThermalDict) -> int:
    """The bytes in use, without the relief that asking stats() for them begins."""
    return subject._ledger.used_bytes


def assert_kept_at_once(subject: ThermalDict) -> None:
    """Like assert_within_budget, on the state that the last call left: nothing is relieved for the question.

    Only a write that the background writer has under way may end first.
    """
    deadline = monotonic() + 10
    numbers = _census.numbers(subject)
    while numbers["used_bytes"] > subject.memory_limit and numbers["warm_entries"] and monotonic() < deadline:
        sleep(0.001)
        numbers = _census.numbers(subject)
    if numbers["used_bytes"] > subject.memory_limit:
        assert numbers["hot_entries"] == numbers["held_entries"] + numbers["pinned_entries"], numbers
        assert numbers["warm_entries"] == 0, numbers


def calls_of(subject: ThermalDict) -> list[Callable[[], object]]:
    """One call of each kind, for a dict that has the keys 0 to 199."""
    return [
        lambda: subject[5],
        lambda: subject.get(6),
        lambda: subject.get("absent"),
        lambda: subject.__setitem__("new", record(1)),
        lambda: subject.__setitem__(7, record(2)),
        lambda: subject.update({n: record(n) for n in range(20, 40)}),
        lambda: subject.setdefault("default", record(3)),
        lambda: subject.setdefault(8, record(3)),
        lambda: subject.pop(9),
        lambda: subject.popitem(),
        lambda: subject.__delitem__(10),
        lambda: sum(len(value) for value in subject.values()),
        lambda: sum(1 for _ in subject.items()),
        lambda: subject.get_many([11, 12, 13]),
        lambda: subject.promote(14),
        lambda: subject.demote(14),
        lambda: subject.prefetch(range(50, 80)),
        lambda: subject == dict(subject),
        lambda: subject.copy().clear(),
        lambda: subject.sync(),
        lambda: subject.__ior__({"or": record(4)}),
        lambda: setattr(subject, "memory_limit", 60_000),
        lambda: subject.clear(),
    ]


@pytest.mark.parametrize("number", range(23))
@pytest.mark.parametrize("limit", [1, 20_000, 100_000])
def test_every_call_leaves_the_ledger_within_its_limit(make: Make, limit: int, number: int) -> None:
    """After a call of each kind the ledger is within the limit, or only held and pinned values are live."""
    subject = make(limit)
    subject.update((key, record(key)) for key in range(200))
    assert_kept_at_once(subject)
    calls_of(subject)[number]()
    assert_kept_at_once(subject)


def test_random_sizes_stay_within_the_limit(make: Make) -> None:
    """After each of 3,000 writes, reads and deletions of values of 10 B to 300 kB the ledger is within 1 MB."""
    source = random.Random(11)
    subject = make(MB)
    sizes: dict[int, int] = {}
    for _ in range(3_000):
        key = source.randrange(300)
        action = source.random()
        if action < 0.5:
            sizes[key] = int(10 ** source.uniform(1, 5.5))
            subject[key] = [bytearray(sizes[key])]
        elif action < 0.9:
            assert key not in sizes or len(subject[key][0]) == sizes[key]
        elif key in sizes:
            del subject[key], sizes[key]
        assert_kept_at_once(subject)
    assert {key: len(value[0]) for key, value in subject.items()} == sizes


def test_one_huge_value_leaves(make: Make) -> None:
    """A value of forty times the limit is stored, leaves RAM, and is read back whole."""
    subject = make(MB)
    subject["huge"] = [bytearray(range(256)) * 160_000]
    assert subject.where("huge") is not Residency.HOT
    assert_within_budget(subject)
    assert ledger_of(subject) <= MB
    assert len(subject["huge"][0]) == 40_960_000
    assert subject["huge"][0][-256:] == bytearray(range(256))
    assert_within_budget(subject)


def grow(value: list[float]) -> None:
    """Let a list grow in place to 50 MB: five million floats in 40 kB steps of the list, 16 B and a slot each."""
    for start in range(0, 2_100_000, 100_000):
        value.extend([start + step / 3 for step in range(100_000)])


@pytest.mark.parametrize("held", [False, True], ids=["through the dict", "through a held reference"])
def test_growth_in_place_is_noticed(make: Make, held: bool) -> None:
    """A value that grows from 1 KB to 50 MB in place is in the ledger after a bounded number of other calls."""
    subject = make("200 MB")
    subject["growing"] = [n / 3 for n in range(32)]
    subject.update({number: record(number) for number in range(500)})
    assert ledger_of(subject) < 5 * MB
    value = subject["growing"] if held else None
    grow(subject["growing"] if value is None else value)
    for step in range(NOTICED_WITHIN):
        if ledger_of(subject) >= 40 * MB:
            break
        subject[step % 500]
    assert ledger_of(subject) >= 40 * MB, f"not noticed within {NOTICED_WITHIN} reads"
    subject.memory_limit = 10 * MB
    if held:
        assert subject.where("growing") is Residency.HOT
        assert subject.stats().held_entries >= 1
        assert subject["growing"] is value
    del value
    assert_within_budget(subject)
    assert ledger_of(subject) <= 10 * MB
    assert len(subject["growing"]) == 2_100_032


def test_growth_is_noticed_by_writes_too(make: Make) -> None:
    """A program that only writes other keys finds out about a value that grew in place as well."""
    subject = make("200 MB")
    subject["growing"] = []
    subject.update({number: record(number) for number in range(500)})
    grow(subject["growing"])
    for step in range(NOTICED_WITHIN):
        subject[step % 500] = record(step)
    assert ledger_of(subject) >= 40 * MB


def fill_tiny(subject: ThermalDict, count: int) -> None:
    """Write so many values that are smaller than their bookkeeping, and read them all."""
    for number in range(count):
        subject[number] = (number,)
    assert ledger_of(subject) <= subject.memory_limit or subject.stats().warm_entries == 0
    assert_within_budget(subject)
    assert all(value == (key,) for key, value in subject.items())
    assert_within_budget(subject)


def test_many_tiny_values(make: Make) -> None:
    """A hundred thousand one-tuples are exact within 14 MB, and under a limit that their keys alone exceed."""
    fill_tiny(make(14 * MB), 100_000)
    fill_tiny(make(2 * MB), 20_000)


@pytest.mark.long
def test_a_million_tiny_values(make: Make) -> None:
    """A million one-tuples are exact within 150 MB, and under a limit that their keys alone exceed."""
    fill_tiny(make(150 * MB), 1_000_000)
    fill_tiny(make(20 * MB), 1_000_000)


def examined_by(subject: ThermalDict, calls: int) -> float:
    """How many values one call looks at, averaged over so many writes of one small value."""
    before = _census.numbers(subject)["examined"]  # stats() would look at all held values itself
    for number in range(calls):
        subject["other"] = [number]
    return (_census.numbers(subject)["examined"] - before) / calls


def held_values(subject: ThermalDict, count: int) -> list[list[int]]:
    """Fill the dict with values that the caller holds."""
    held = [[number] for number in range(count)]
    for number, value in enumerate(held):
        subject[number] = value
    return held


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_held_values_cost_each_call_a_constant(make: Make, count: int) -> None:
    """With a hundred thousand held values a call looks at a few values, as with a thousand; they are reported held."""
    few, many = make(1), make(1)
    held = held_values(few, 1_000), held_values(many, count)
    stats = many.stats()
    assert stats.held_entries == stats.hot_entries == count
    assert stats.examined < 20 * count, "storing held values looked at each of them many times"
    cost_of_few, cost_of_many = examined_by(few, 500), examined_by(many, 500)
    assert cost_of_many <= max(2 * cost_of_few, 20), (cost_of_few, cost_of_many)
    assert_kept_at_once(many)
    assert all(many[number] is held[1][number] for number in range(0, count, 997))


@pytest.mark.parametrize("released", ["all", "half"])
def test_released_values_leave_soon(make: Make, released: str) -> None:
    """Of 20,000 held values those that are let go leave RAM within as many calls, and the others stay what they are."""
    subject = make(1)
    held = held_values(subject, 20_000)
    assert subject.stats().hot_entries == 20_000
    del held[:: 1 if released == "all" else 2]
    kept = len(held)
    for number in range(20_000):
        subject["other"] = [number]
        if number % 100 == 0 and subject.stats().hot_entries == kept:
            break
    assert subject.stats().hot_entries == subject.stats().held_entries == kept
    for value in held:
        assert subject[value[0]] is value


def test_deletion_waves_give_the_bytes_back(make: Make) -> None:
    """Through waves of 2,000 writes and deletions the ledger stays within its limit and the disk does not fill up."""
    subject = make(300_000)
    for wave in range(6):
        for number in range(2_000):
            subject[wave, number] = record(number)
        assert_kept_at_once(subject)
        for number in range(2_000):
            if number % 7:
                del subject[wave, number]
        assert_kept_at_once(subject)
    assert len(subject) == 6 * len(range(0, 2_000, 7))
    assert all(subject[wave, number] == record(number) for wave in range(6) for number in range(0, 2_000, 7))
    subject.clear()
    assert subject.stats().disk_live_bytes == 0


@pytest.mark.parametrize("limit", ["1 GB", "300 kB", 1])
@pytest.mark.parametrize("emptied_by", ["clear", "del", "pop", "popitem"])
def test_the_ledger_is_conserved(make: Make, limit: int | str, emptied_by: str) -> None:
    """After everything is gone, however it went, the ledger holds what it held at first, but for table and codec."""
    subject = make(limit)
    before = ledger_of(subject)
    subject.update({number: record(number) for number in range(1_000)})
    keys = list(subject)
    for key in keys[:: 1 if emptied_by != "clear" else len(keys)]:
        if emptied_by == "clear":
            subject.clear()
        elif emptied_by == "del":
            del subject[key]
        elif emptied_by == "pop":
            assert subject.pop(key) == record(key)
        else:
            assert subject.popitem()[1]["text"]
    stats = subject.stats()
    assert stats.entries == stats.hot_bytes == stats.warm_bytes == stats.held_bytes == stats.disk_live_bytes == 0
    table = stats.entry_bytes
    assert table <= dict.__sizeof__(subject)
    assert stats.used_bytes - before <= table + stats.buffer_bytes + stats.slack_bytes
    assert stats.buffer_bytes <= max(64_000, stats.limit_bytes // 16)


def growth(kind: str, limit: str, count: int, spill_dir: Path) -> dict[str, Any]:
    """What memory_growth.py measured in a process of its own."""
    command = python(GROWTH_SCRIPT, kind, limit, count, spill_dir)
    child = subprocess.run(command, env=children_environment(), capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    figures: dict[str, Any] = json.loads(child.stdout)
    print(f"\n{kind} x {count:,} under {limit}: {figures}")
    return figures


@pytest.mark.parametrize(
    ("kind", "limit", "count"),
    [
        ("records", "1 GB", 60_000),
        ("records", "60 MB", 120_000),
        ("nested", "1 GB", 40_000),
        ("nested", "60 MB", 80_000),
    ],
)
def test_the_ledger_tells_the_truth(tmp_path: Path, kind: str, limit: str, count: int) -> None:
    """The process grows by 0.7 to 1.3 times what the ledger says, without pressure and under it."""
    figures = growth(kind, limit, count, tmp_path)
    assert 0.7 <= figures["resident_growth_bytes"] / figures["used_bytes"] <= 1.3, figures


@pytest.mark.parametrize(("limit", "count"), [("1 GB", 60_000), ("150 MB", 200_000)])
def test_memory_returns_to_the_system(tmp_path: Path, limit: str, count: int) -> None:
    """After all entries are deleted the process gives back at least 60 % of what it had grown by."""
    # Not smaller: the codec's dictionaries stay, and their few objects keep up to 15 arenas of 1 MB alive.
    figures = growth("records", limit, count, tmp_path)
    assert figures["returned_bytes"] >= 0.6 * figures["resident_growth_bytes"], figures


def test_closing_while_the_writer_works_is_silent(tmp_path: Path) -> None:
    """A dict that is closed while the background writer has frames of it under way ends without a word."""
    complaints: list[object] = []
    before, threading.excepthook = threading.excepthook, complaints.append
    try:
        for _ in range(60):
            subject = ThermalDict.open(memory_limit=100_000, spill_dir=tmp_path)
            subject.update((key, record(key)) for key in range(200))
            subject._tiers.on_backlog()
            subject.close()
    finally:
        threading.excepthook = before
    assert complaints == []


def test_many_small_values_leave_in_small_batches(make: Make) -> None:
    """Values for which a frame saves nothing are written in bounded batches, so a relief of many frees RAM soon."""
    subject = make("1 GB")
    subject.update((key, (key,)) for key in range(30_000))
    batches: list[int] = []
    append = subject._tiers.store.append

    def watched(frames: Sequence[bytes], *, moving: bool = False) -> list[int]:
        batches.append(len(frames))
        return append(frames, moving=moving)

    subject._tiers.store.append = watched
    subject.memory_limit = 1
    assert subject.stats().cold_entries == 30_000
    assert sum(batches) == 30_000
    assert max(batches) < 10_000
