"""What is on disk never runs code unless the caller said so, never reads outside its bounds, never allocates beyond
its size."""

import os
import pickle
import random
import shutil
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_alloc import (
    CorruptFrameError,
    SpectralAllocError,
    ThermalDict,
    UntrustedError,
    _log,
    _safe,
    repair,
    verify,
)
from spectral_alloc._graph_stream import write_graph
from spectral_alloc.durable import DurableSettings, open_log
from spectral_alloc.file_system import REAL_FILE_SYSTEM
from spectral_alloc.frame import FrameCodec
from spectral_alloc.log import Record

KEY = "a secret of enough bytes"
FUZZ_SECONDS = 600.0
ALLOCATION_FACTOR = 64
ALLOCATION_BASE_BYTES = 4 << 20

ran: list[str] = []


class Trap:
    """What unpickling would run."""

    def __reduce__(self) -> Any:
        return ran.append, ("executed",)


SEEDS: list[Any] = [
    [1, 2.5, "text", b"bytes", None, True, -(1 << 80)],
    {"k": [{"x": {1, 2, 3}}, ("a", frozenset({"b", "c"}))], "wide": "\u20ac\U0001f600"},
    [[0.5] * 9, bytearray(40), {name: name for name in "abcdefgh"}],
    {number * 1009 for number in range(40)},
]
CYCLE: list[Any] = [1]
CYCLE.append({"again": CYCLE})
STREAMS = [
    *(write_graph(value, portable) for value in [*SEEDS, CYCLE] for portable in (True, False)),
    *(_safe.encode(value) for value in SEEDS),
    pickle.dumps(Trap()),
    b"\x37\xa4\x30\xec" + bytes(range(200)),
]


def plant(path: Path) -> None:
    """Put a trap into a durable dict, as somebody could who may write its files."""
    with ThermalDict.open(path) as subject:
        subject["good"] = 1
        log = subject._journal.log  # type: ignore[union-attr]  # it is durable
        frame = FrameCodec("raw").encode([pickle.dumps(Trap())], [1])
        # Neither in a value that says it is pickled, nor in one that says it is not, nor in a key.
        log.commit(
            [Record(_log.PUT, b"strap", frame, 0), Record(_log.PUT, b"p" + pickle.dumps(Trap()), frame, _log.PICKLED)]
        )


def test_a_planted_pickle_is_never_run(tmp_path: Path) -> None:
    """Opening, reading, verifying and repairing a store with a planted pickle runs nothing without trust."""
    path = tmp_path / "d"
    plant(path)
    ran.clear()
    with pytest.raises(UntrustedError, match="trust=True"):
        ThermalDict.open(path)
    with pytest.raises(UntrustedError, match="trust=True"):
        ThermalDict.open(path, codec="safe", readonly=True)
    verify(path)
    repair(path)
    assert ran == []


def test_a_value_that_hides_its_pickle_is_not_read(tmp_path: Path) -> None:
    """A frame that claims to be safe and is a pickle raises at the read; others are readable."""
    path = tmp_path / "d"
    with ThermalDict.open(path) as subject:
        subject["good"] = [1]
        frame = FrameCodec("raw").encode([pickle.dumps(Trap())], [1])
        subject._journal.log.commit([Record(_log.PUT, b"strap", frame)])  # type: ignore[union-attr]  # it is durable
    ran.clear()
    with ThermalDict.open(path) as subject:
        with pytest.raises(UntrustedError):
            subject["trap"]
        assert subject["good"] == [1]
    assert ran == []


def test_trust_and_a_key_let_any_value_be_stored(tmp_path: Path) -> None:
    """With trust=True or key= instances come back; without either they are refused by type, and codec="safe" always
    does."""
    for name, trust in (("trusted", {"trust": True}), ("keyed", {"key": KEY})):
        path = tmp_path / name
        with ThermalDict.open(path, **trust) as subject:
            subject["counter"] = Counter("aab")
            subject[frozenset({1})] = complex(1, 2)
        with ThermalDict.open(path, **trust) as subject:
            assert subject["counter"] == Counter("aab")
            assert type(subject["counter"]) is Counter
            assert subject[frozenset({1})] == complex(1, 2)
        with ThermalDict.open(tmp_path / f"safe {name}", codec="safe", **trust) as subject:
            subject["counter"] = Counter("aab")
            with pytest.raises(TypeError, match="Counter objects cannot be stored without pickle"):
                subject.sync()
            del subject["counter"]
    with pytest.raises(UntrustedError, match="trust=True"):
        ThermalDict.open(tmp_path / "trusted")


@pytest.mark.parametrize("key", [None, "another secret of enough bytes"])
def test_another_key_or_none_is_refused(tmp_path: Path, key: str | None) -> None:
    """A keyed store opens with its key alone, and an unkeyed one with none."""
    path = tmp_path / "d"
    with ThermalDict.open(path, key=KEY) as subject:
        subject["a"] = 1
    with pytest.raises(UntrustedError, match="key="):
        ThermalDict.open(path, key=key)
    with ThermalDict.open(path, key=KEY.encode()) as subject:
        assert subject["a"] == 1
    with ThermalDict.open(tmp_path / "plain") as subject:
        subject["a"] = 1
    with pytest.raises(UntrustedError, match="without one"):
        ThermalDict.open(tmp_path / "plain", key=KEY)


@pytest.mark.parametrize(("key", "error"), [(b"short", ValueError), (7, TypeError)])
def test_a_bad_key_is_refused(tmp_path: Path, key: Any, error: type[Exception]) -> None:
    """A key that is too short, or no key, is refused before anything is made."""
    with pytest.raises(error, match="key must"):
        ThermalDict.open(tmp_path / "d", key=key)
    assert not (tmp_path / "d").exists()


PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.complex_numbers(allow_nan=False),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.binary(max_size=40).map(bytearray),
        st.sets(st.integers(), max_size=4),
        st.frozensets(st.text(max_size=3), max_size=4),
    ),
    max_leaves=12,
)


def shape_of(value: Any) -> Any:
    """The types in a value, in order where it has one."""
    if isinstance(value, set | frozenset):
        return type(value), sorted(map(repr, value))
    if isinstance(value, dict):
        return type(value), [(key, shape_of(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape_of(item) for item in value]
    return type(value), repr(value)


@given(PLAIN)
def test_the_safe_form_gives_plain_data_back(value: Any) -> None:
    """Values, types and order survive; so does what is shared within a value."""
    shared = _safe.decode(_safe.encode([value, value]))
    assert shared[0] == value
    assert shape_of(shared[0]) == shape_of(value)
    assert (shared[0] is shared[1]) or not isinstance(value, list | dict | set | bytearray)


def test_the_safe_form_keeps_cycles_and_refuses_the_rest() -> None:
    """A list that contains itself does so again; subclasses, instances and functions are refused by type."""
    loop: list[Any] = [1]
    loop.append(loop)
    again = _safe.decode(_safe.encode(loop))
    assert again[1] is again
    for value in (Counter(), object(), print, type("S", (str,), {})("x"), range(3)):
        with pytest.raises(TypeError, match="without pickle"):
            _safe.encode([value])
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(RecursionError, match="500"):
        _safe.encode(deep)


@given(st.binary(max_size=200))
def test_the_safe_form_reads_anything_without_harm(data: bytes) -> None:
    """Random bytes give a value or CorruptFrameError, and nothing large is allocated for them."""
    tracemalloc.start()
    try:
        _safe.decode(b"\xd5" + data)
    except CorruptFrameError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_formula_gives_no_more_than_zstd_could(tmp_path: Path) -> None:
    """A few bytes that say they are a gigabyte are not believed without trust; verify does not grow them."""
    path, blob = tmp_path / "d", bytes(3 << 20)
    frame = FrameCodec().encode([write_graph(blob)], [1])
    assert len(frame) < 60
    with ThermalDict.open(path) as subject:
        subject["own"] = blob
        log = subject._journal.log  # type: ignore[union-attr]  # it is durable
        log.commit([Record(_log.PUT, b"splanted", frame)])
    with ThermalDict.open(path) as subject:
        assert subject["own"] == blob
        with pytest.raises(CorruptFrameError, match="trust"):
            subject["planted"]
    assert verify(path).is_whole
    with ThermalDict.open(path, trust=True) as subject:
        assert subject["planted"] == blob


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or made up."""
    made = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(made) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(made):
            made[at] = chance.randrange(256)
        elif kind == 1:
            del made[at : at + chance.randrange(40)]
        elif kind == 2:
            made[at:at] = made[at : at + chance.randrange(60)]
        elif kind == 3:
            made[at : at + 8] = chance.randrange(1 << 64).to_bytes(8, "little")
        else:
            made[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(made)


def resealed(data: bytes, is_header: bool) -> bytes:
    """The same bytes with a right checksum in the header, so that what is behind it is looked at."""
    from spectral_alloc._frame import crc32c

    if len(data) < 96:
        return data
    body = b"" if is_header else data[96:]
    blank = data[:12] + bytes(4) + data[16:96]
    return data[:12] + crc32c(body, crc32c(blank)).to_bytes(4, "little") + data[16:]


def with_crafted_records(path: Path, chance: random.Random) -> int:
    """Append sound records with frames of crafted values, keys, flags and kinds to a store; returns their bytes."""
    frames = FrameCodec(chance.choice(["raw", "zstd", "lz4"]))
    settings = DurableSettings(str(path))
    found, lock = open_log(settings, None, REAL_FILE_SYSTEM, decode_key=lambda data: data)
    records = []
    for _ in range(chance.randrange(1, 4)):
        value = chance.choice(STREAMS)
        parts = [mutated(value, chance) or b"x" for _ in range(chance.choice([1, 1, 1, 2]))]
        frame = frames.encode(parts, [1] * len(parts)) if chance.random() < 0.9 else mutated(value, chance)
        key = mutated(chance.choice([b"sk1", b"bk", b"o\xd5i\x01\x07", b"o\xd5t\x02i\x01\x01N"]), chance)
        kind = chance.choice([1, 1, 1, 1, 2, 3, 4, 5, 200])
        records.append(Record(kind, key, frame, chance.choice([0, 2, 4, 8, 15, 255]), chance.randrange(20)))
    try:
        found.log.commit(records, batch=chance.random() < 0.5)
        found.log.close()
    finally:
        found.log.abandon()
        del lock
    return sum(len(record.frame) for record in records)


def try_everything(path: Path) -> None:
    """Use a crafted store in every way; only our own errors may come of it."""
    for use in ("open", "verify", "repair", "open"):
        try:
            if use == "open":
                with ThermalDict.open(path, readonly=True) as subject:
                    for name in list(subject):
                        try:
                            subject[name]
                        except (CorruptFrameError, UntrustedError):
                            continue
            else:
                {"verify": verify, "repair": repair}[use](path)
        except (SpectralAllocError, OSError):
            continue


def with_mutated_file(path: Path, chance: random.Random) -> int:
    """Change one file of a store; returns its bytes."""
    file = chance.choice(sorted(path.iterdir()))
    data = mutated(file.read_bytes(), chance)
    if chance.random() < 0.7:
        data = resealed(data, file.name.startswith("log-"))
    file.write_bytes(data)
    if file.name.startswith("log-") and chance.random() < 0.6:
        os.unlink(path / file.name.replace("log", "hint"))
    return len(data)


def test_a_crafted_store_does_no_harm(tmp_path: Path, long_mode: bool) -> None:
    """Mutated files and crafted records (10 minutes of them in the long mode) run nothing, and allocate little."""
    path, clean = tmp_path / "d", tmp_path / "clean"
    with ThermalDict.open(clean) as subject:
        subject.update({f"k{number}": [number] * number for number in range(12)} | {"s": "x" * 100, (1, 2): None})
        subject.sync()
        del subject["k3"]
    ran.clear()
    chance = random.Random(time.time_ns() if long_mode else 1)
    end_seconds = time.monotonic() + (FUZZ_SECONDS if long_mode else 4.0)
    rounds = 0
    while time.monotonic() < end_seconds and (long_mode or rounds < 150):
        rounds += 1
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(clean, path)
        if chance.random() < 0.5:
            crafted = with_crafted_records(path, chance)
        else:
            crafted = with_mutated_file(path, chance)
        tracemalloc.start()
        try:
            try_everything(path)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < ALLOCATION_BASE_BYTES + ALLOCATION_FACTOR * crafted, peak
    print(f"{rounds} crafted stores")
    assert rounds > 5
    assert ran == []
