"""ThermalDict under threads: no lost update, one read for all who want it, and no deadlock through user code."""

import faulthandler
import gc
import queue
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from faults import FaultyFileSystem
from tiny import assert_all_cold

from spectral_alloc import ThermalDict
from spectral_alloc.closure import register_type
from spectral_alloc.cold_store import ColdStore
from spectral_alloc.frame_dictionary import FrameDictionaries
from spectral_alloc.tiers import Tiers
from spectral_alloc.writer import Writer

THREADS = 8
PATIENCE_SECONDS = 60
SHARED = [f"shared-{number}" for number in range(24)]
LIMITS = [1, 20_000, 200_000, 3_000_000]
VALUE = list(range(500))

pytestmark = pytest.mark.usefixtures("many_switches")


def run_together(*works: Callable[[], object]) -> None:
    """Run every work in a thread of its own; raise the first error, or show where they hang."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        faulthandler.dump_traceback(all_threads=True)
        raise AssertionError("threads hang")
    if errors:
        raise errors[0]


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for what another thread does; AssertionError if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


class Churn:
    """Eight threads at work on one dict, and what its contents must be then.

    A shared value is changed under the lock of its key: ``added`` counts what was put in, ``drained`` what left with
    deleted values. An own key is used by one thread alone, which keeps a dict beside it.
    """

    def __init__(self, subject: ThermalDict, seconds: float) -> None:
        self.subject = subject
        self.locks = {key: threading.Lock() for key in SHARED}
        self.added: Counter[str] = Counter()
        self.drained: Counter[str] = Counter()
        self.own: list[dict[Any, Any]] = [{} for _ in range(THREADS)]
        self.end_seconds = time.monotonic() + seconds
        self.rounds = [0] * THREADS

    def value(self, key: object, dice: random.Random) -> dict[str, Any]:
        words = [dice.choice(("warm", "cold", "hot", "frame", "place")) for _ in range(dice.randrange(400))]
        return {"key": key, "count": 0, "words": words, "parts": [bytearray(b"x" * dice.randrange(2000))]}

    def edit_shared(self, key: str, dice: random.Random) -> None:
        with self.locks[key]:
            value = self.subject.setdefault(key, self.value(key, dice))
            value["count"] += 1
            value["parts"][0].append(7)
            del value
            self.subject[key]["count"] += 1
            self.added[key] += 2

    def replace_shared(self, key: str, dice: random.Random) -> None:
        with self.locks[key]:
            old = self.subject.get(key)
            new = self.value(key, dice)
            new["count"] = 1 + (old["count"] if old is not None else 0)
            if dice.random() < 0.5:
                self.subject[key] = new
            else:
                self.subject.update({key: new})
            self.added[key] += 1

    def drop_shared(self, key: str, dice: random.Random) -> None:
        with self.locks[key]:
            if dice.random() < 0.5:
                old = self.subject.pop(key, None)
            else:
                old = self.subject.get(key)
                with suppress(KeyError):
                    del self.subject[key]
            assert key not in self.subject
            self.drained[key] += old["count"] if old is not None else 0

    def read_shared(self, key: str, dice: random.Random) -> None:
        value = self.subject.get(key)
        assert value is None or value["key"] == key
        with suppress(KeyError):
            assert self.subject[key]["key"] == key
        for found in self.subject.get_many([key, dice.choice(SHARED)]):
            assert found is None or found["key"] in SHARED

    def move_shared(self, key: str, dice: random.Random) -> None:
        with suppress(KeyError):
            dice.choice((self.subject.demote, self.subject.promote, self.subject.where, self.subject.temperature))(key)
        self.subject.prefetch(dice.sample(SHARED, 3))

    def iterate(self, key: str, dice: random.Random) -> None:
        try:
            for number, (name, value) in enumerate(self.subject.items()):
                assert value["key"] == name
                if number > 20:
                    break
            for value in self.subject.values():
                assert len(value["parts"]) == 1
        except RuntimeError as error:
            assert "changed" in str(error)  # noqa: PT017  # dict says the same to an iteration that others disturb

    def limit(self, key: str, dice: random.Random) -> None:
        self.subject.memory_limit = limit_bytes = dice.choice(LIMITS)
        assert self.subject.stats().limit_bytes in LIMITS, limit_bytes

    def use_own(self, index: int, dice: random.Random) -> None:
        model, subject = self.own[index], self.subject
        key = (index, dice.randrange(40))
        act = dice.randrange(7)
        if act < 3:
            model[key] = self.value(key, dice)
            subject[key] = self.value(key, dice) | {name: model[key][name] for name in ("words", "parts")}
            model[key]["parts"] = [bytearray(model[key]["parts"][0])]
        elif act == 3 and key in model:
            subject[key]["count"] += 1
            model[key]["count"] += 1
        elif act == 4:
            assert subject.pop(key, None) == model.pop(key, None)
        elif act == 5 and key in model:
            del subject[key], model[key]
        else:
            assert subject.get(key) == model.get(key)
            assert (key in subject) == (key in model)

    def work(self, index: int, seed: int) -> None:
        dice = random.Random(seed * THREADS + index)
        acts = [self.edit_shared] * 6 + [self.read_shared] * 4 + [self.replace_shared] * 2
        acts += [self.drop_shared, self.move_shared, self.iterate, self.limit]
        while time.monotonic() < self.end_seconds:
            dice.choice(acts)(dice.choice(SHARED), dice)
            self.use_own(index, dice)
            self.rounds[index] += 1

    def verify(self) -> None:
        subject = self.subject
        assert set(subject) == {*(k for k in SHARED if k in subject), *(k for own in self.own for k in own)}
        for key in SHARED:
            left = subject.pop(key)["count"] if key in subject else 0
            assert left + self.drained[key] == self.added[key], key
        for own in self.own:
            for key, value in own.items():
                assert subject[key] == value


@pytest.mark.parametrize("memory_limit", [1, 3_000_000])
def test_mixed_operations(
    tiny: Callable[..., ThermalDict], monkeypatch: pytest.MonkeyPatch, long_mode: bool, memory_limit: int
) -> None:
    """Eight threads on shared and own keys, while tiers move, lose no update, and every account is exact at the end."""
    monkeypatch.setitem(ColdStore.__init__.__kwdefaults__, "segment_bytes", 128 << 10)
    subject = tiny(memory_limit=memory_limit)
    churn = Churn(subject, 60 if long_mode else 2)
    run_together(*(lambda index=index: churn.work(index, memory_limit) for index in range(THREADS)))
    subject.memory_limit = memory_limit
    assert min(churn.rounds) > 0
    churn.verify()
    subject.check()
    stats = subject.stats()
    assert stats.demotions > 100
    assert not stats.events, stats.events
    subject.clear()
    wait_until(lambda: subject.stats().disk_live_bytes == 0)  # a compaction under way has a copy more
    subject.check()


def test_writer_trains_and_compacts_beside_threads(
    tiny: Callable[..., ThermalDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values survive a dictionary training and compactions in the background while all threads rewrite them."""
    monkeypatch.setitem(ColdStore.__init__.__kwdefaults__, "segment_bytes", 64 << 10)
    trained: list[bool] = []
    moved: list[str] = []
    train, move_frames = FrameDictionaries.train, Tiers._move_frames
    monkeypatch.setattr(FrameDictionaries, "train", lambda self: trained.append(train(self)))
    monkeypatch.setattr(
        Tiers, "_move_frames", lambda *given: moved.append(threading.current_thread().name) or move_frames(*given)
    )
    subject = tiny(memory_limit=2_500_000)
    keys = range(3000)

    def record(key: int, turn: int) -> dict[str, Any]:
        name = f"name {key * 7919 % 1000}"
        log = random.Random(key).randbytes(900)
        note = "what all records say, which makes a dictionary worth its while: " + name
        return {"key": key, "turn": turn, "name": name, "mail": f"{name}@example.org", "note": note, "log": log}

    def write(index: int) -> None:
        for turn in range(3):
            for key in keys[index::THREADS]:
                subject[key] = record(key, turn)
            for key in keys[index::THREADS][::7]:
                assert subject[key] == record(key, turn)

    run_together(*(lambda index=index: write(index) for index in range(THREADS)))
    assert all(subject[key] == record(key, 2) for key in keys)
    wait_until(lambda: not subject._tiers.has_backlog)
    subject.check()
    assert True in trained
    assert "spectral_alloc writer" in moved


def test_concurrent_reads_of_one_cold_key_are_one_read(tiny: Callable[..., ThermalDict]) -> None:
    """Threads that want the same cold value wait for one disk read, and all get the same object."""
    disk = FaultyFileSystem()
    subject = tiny({"k": VALUE[:]}, file_system=disk)
    assert_all_cold(subject)
    arrived: list[int] = []
    results: list[Any] = []
    before = disk.calls["read_at"]
    disk.before("read_at", lambda: (wait_until(lambda: len(arrived) == THREADS), time.sleep(0.05)))

    def read() -> None:
        arrived.append(1)
        results.append(subject["k"])

    run_together(*[read] * THREADS)
    assert disk.calls["read_at"] == before + 1
    assert results[0] == VALUE
    assert all(result is results[0] for result in results)


def test_late_reader_shares_a_read_that_is_not_installed_yet(tiny: Callable[..., ThermalDict]) -> None:
    """A thread that asks while the frame is being decoded does not read the disk again."""
    disk = FaultyFileSystem()
    subject = tiny({"k": VALUE[:]}, file_system=disk)
    assert_all_cold(subject)
    before = disk.calls["read_at"]
    decode, late = subject._tiers.open_frame, []

    def decode_slowly(frame: bytes) -> Any:
        if not late:
            late.append("k")
            run_together(lambda: late.append(subject["k"]))
        return decode(frame)

    subject._tiers.open_frame = decode_slowly
    assert subject["k"] is late[1]
    assert disk.calls["read_at"] == before + 1


def test_slow_read_of_one_key_does_not_block_others(tiny: Callable[..., ThermalDict]) -> None:
    """While a disk read hangs, other threads hit live values, write, delete, and read other cold values."""
    disk = FaultyFileSystem()
    subject = tiny({"slow": VALUE[:], "cold": VALUE[:]}, file_system=disk)
    assert_all_cold(subject)
    subject["hot"] = held = [1]
    release, hanging = threading.Event(), threading.Event()

    def hang_once() -> None:
        disk.heal()
        hanging.set()
        assert release.wait(PATIENCE_SECONDS)

    disk.before("read_at", hang_once)

    def others() -> None:
        assert hanging.wait(PATIENCE_SECONDS)
        assert subject["hot"] is held
        subject["new"] = VALUE[:]
        subject["slow 2"] = 1
        del subject["slow 2"]
        assert subject["cold"] == VALUE
        assert subject.where("slow").name == "COLD"
        subject.check()
        release.set()

    run_together(others, lambda: subject["slow"])
    assert subject == {"slow": VALUE, "cold": VALUE, "hot": [1], "new": VALUE}


@pytest.mark.parametrize("change", ["replace", "delete", "delete and insert"])
def test_change_during_a_read_wins(tiny: Callable[..., ThermalDict], change: str) -> None:
    """A read that races with a write or deletion gives the old or the new value or none, and installs nothing stale."""
    disk = FaultyFileSystem()
    subject = tiny({"k": VALUE[:], "other": VALUE[:]}, file_system=disk)
    assert_all_cold(subject)

    def change_once() -> None:
        disk.heal()
        if change != "replace":
            del subject["k"]
        if change != "delete":
            subject["k"] = ["new"]

    disk.before("read_at", change_once)
    assert subject.get("k", "default") in (VALUE, ["new"], "default")
    assert subject.get("k") == (None if change == "delete" else ["new"])
    subject.check()


def test_read_racing_with_compaction_gives_no_detached_copy(tiny: Callable[..., ThermalDict]) -> None:
    """A value whose frame moves while it is read is still the entry's own object: an edit of it stays."""
    disk = FaultyFileSystem()
    subject = tiny({"k": VALUE[:]}, file_system=disk)
    assert_all_cold(subject)
    cell = subject._find("k")
    moved: list[tuple[Any, ...]] = []

    def move_once() -> None:
        disk.heal()
        origin = subject._ledger.whereabouts(cell)
        subject._tiers._move_frames([(origin[1], origin[2], cell)])
        moved.append((origin, subject._ledger.whereabouts(cell)))

    disk.before("read_at", move_once)
    value = subject["k"]
    value.append("edited")
    (before, after), *_ = moved
    assert before != after
    del value
    assert subject["k"] == [*VALUE, "edited"]
    subject.check()


@pytest.mark.parametrize("crosswise", [False, True])
def test_read_from_inside_a_read(tiny: Callable[..., ThermalDict], crosswise: bool) -> None:
    """A destructor or signal handler that reads amid a read, also crosswise in two threads, gets its value."""
    disk = FaultyFileSystem()
    subject = tiny({"a": VALUE[:], "b": VALUE[:]}, file_system=disk)
    assert_all_cold(subject)
    both = threading.Barrier(2 if crosswise else 1)
    inner: dict[str, str] = {"a": "b", "b": "a"} if crosswise else {"a": "a"}
    current = threading.local()
    results: list[Any] = []

    def read_inside() -> None:
        key = current.__dict__.pop("key", None)
        if key is not None:
            both.wait(PATIENCE_SECONDS)
            results.append(subject[inner[key]])

    disk.before("read_at", read_inside)

    def read(key: str) -> None:
        current.key = key
        results.append(subject[key])

    run_together(*(lambda key=key: read(key) for key in inner))
    assert results == [VALUE] * 2 * len(inner)
    subject.check()


class Reentrant:
    """Its reducer, its restorer and its finaliser use the dict that it lives in."""

    # Of the class: a weak reference in an instance is dead when its finaliser runs in a garbage collection.
    home: ThermalDict

    def __init__(self, key: object, ring: bool) -> None:
        self.key = key
        self.ring = [self] if ring else []

    def __del__(self) -> None:
        self.home["finalised", self.key] = [self.key]
        self.home.get(("reduced", self.key))


def reduce_reentrant(value: Reentrant) -> object:
    value.home["reduced", value.key] = [value.key]
    value.home.get(("plain", value.key))
    return value.key


def restore_reentrant(key: object) -> Reentrant:
    Reentrant.home["restored", key] = [key]
    Reentrant.home.get(("plain", key))
    return Reentrant(key, False)


def test_reducers_and_finalisers_that_reenter_do_not_deadlock(
    tiny: Callable[..., ThermalDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values whose reducers and finalisers use the dict, in many threads, end in order and in the right place."""
    subject = tiny()
    monkeypatch.setattr(Reentrant, "home", subject, raising=False)
    register_type(Reentrant, reduce=reduce_reentrant, restore=restore_reentrant)
    numbers = range(25)

    def work(index: int) -> None:
        for number in numbers:
            key = (index, number)
            subject["plain", key] = VALUE[:]
            subject[key] = Reentrant(key, number % 2 == 0)
            assert subject["plain", key] == VALUE
            assert subject[key].key == key
            del subject[key]
            if number % 10 == 0:
                gc.collect()

    run_together(*(lambda index=index: work(index) for index in range(THREADS)))
    gc.collect()
    for key in ((index, number) for index in range(THREADS) for number in numbers):
        assert subject["plain", key] == VALUE
        assert subject["finalised", key] == [key]
        assert ("reduced", key) not in subject or subject["reduced", key] == [key]
    assert any(key[0] == "reduced" for key in subject)
    assert any(key[0] == "restored" for key in subject)
    subject.check()


def test_new_classes_in_many_threads(tiny: Callable[..., ThermalDict]) -> None:
    """Types met for the first time, so that the walk stops to classify them, disturb no other thread's walk."""
    subject = tiny()

    def work(index: int) -> None:
        for number in range(30):
            made = type(f"Made{index}x{number}", (), {"__slots__": ("held", "__dict__")})
            value = made()
            value.held, value.note = [number], {index: number}
            subject[index, number] = [value]
            del value, made
            assert subject[index, number][0].note == {index: number}
            assert subject[index, number // 2][0].held == [number // 2]

    run_together(*(lambda index=index: work(index) for index in range(THREADS)))
    subject.check()
    assert len(subject) == 30 * THREADS


def test_job_that_comes_when_the_writer_goes_idle_is_done() -> None:
    """A container that submits just when the writer gives up waiting is still worked on, then and later."""
    writer = Writer()
    turns: list[int] = []

    class Container:
        def _work(self) -> None:
            turns.append(1)

    container = Container()
    reference = weakref.ref(container)

    class LateQueue(queue.SimpleQueue[None]):
        """Times out at once, and a job comes in that very moment."""

        def get(self, block: bool = True, timeout: float | None = None) -> None:
            if len(turns) == 1:
                writer.submit(reference)
            raise queue.Empty

    writer._wake = LateQueue()
    writer.submit(reference)
    wait_until(lambda: len(turns) == 2)
    writer.submit(reference)
    wait_until(lambda: len(turns) == 3)
