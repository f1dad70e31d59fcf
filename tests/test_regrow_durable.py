"""Recipes in the log of a durable dict: stored by name, run only where that is trusted, and no value's bytes beside."""

import contextlib
import functools
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regrow_recipes
from regrow_recipes import REGROWN, record, words

from spectral_alloc import (
    CorruptFrameError,
    RegrowError,
    Residency,
    ThermalDict,
    UntrustedError,
    _log,
    _safe,
    repair,
    verify,
)
from spectral_alloc.log import Record
from spectral_alloc.stored_recipes import name_of_function, named_function

KEY = "a secret of enough bytes"
ALWAYS: dict[str, Any] = {"regrow_always": True}


def bytes_on_disk(path: Path) -> bytes:
    """All that is in the segments of a log."""
    return b"".join(file.read_bytes() for file in sorted(path.glob("log-*")))


@pytest.mark.parametrize("durability", ["none", "always"])
def test_no_bytes_of_a_regrown_value_are_written(tmp_path: Path, durability: str) -> None:
    """With a recipe for all keys, the log has names and digests alone, and a reopened dict gives the values."""
    path = tmp_path / "d"
    with ThermalDict.open(path, regrow=words, durability=durability, codec="raw", **ALWAYS) as d:
        for key in range(20):
            d[key] = words(key)
        d["own"] = ["a value of its own"]
    data = bytes_on_disk(path)
    assert b"the words of" not in data
    assert b"a value of its own" in data
    with ThermalDict.open(path, regrow=words, **ALWAYS) as d:
        assert [d.where(key) is REGROWN for key in d] == [True] * 20 + [False]
        assert d.stats().regrown_entries == 20
        assert list(d.items()) == [*((key, words(key)) for key in range(20)), ("own", ["a value of its own"])]
        assert d.where(3) is Residency.HOT
        d.check()
    assert b"the words of" not in bytes_on_disk(path)


def test_edits_and_overwrites_are_durable(tmp_path: Path) -> None:
    """An edited value is written in full, one that is what the recipe gives again is not."""
    path = tmp_path / "d"
    with ThermalDict.open(path, regrow=words, **ALWAYS) as d:
        d.update((key, words(key)) for key in range(6))
    with ThermalDict.open(path, regrow=words, **ALWAYS) as d:
        d[0].append("edited")
        d[1] = "overwritten"
        d[2].append("edited")
        d.sync()
        d[2].pop()
        del d[3]
    expected = {0: [*words(0), "edited"], 1: "overwritten", 2: words(2), 4: words(4), 5: words(5)}
    with ThermalDict.open(path, regrow=words, **ALWAYS) as d:
        assert [d.where(key) is REGROWN for key in d] == [False, False, True, True, True]
        assert dict(d) == expected
        d.check()


def test_under_a_memory_limit_values_leave_for_their_recipes(tmp_path: Path) -> None:
    """A dict that keeps nothing in RAM commits recipes, and every read gives the value."""
    path = tmp_path / "d"
    with ThermalDict.open(path, regrow=words, memory_limit=1, codec="raw", **ALWAYS) as d:
        for key in range(40):
            d[key] = words(key)
            assert d[key // 2] == words(key // 2)
        d.check()
        assert d.stats().regrown_entries >= 38
        d[7].append("edited")
        assert d[7] == [*words(7), "edited"]
    with ThermalDict.open(path, regrow=words, memory_limit=1) as d:
        assert d[7] == [*words(7), "edited"]
        assert all(d[key] == words(key) for key in range(40) if key != 7)
        assert d.stats().regrown_entries == 39
        d.check()


def test_a_recipe_for_one_key_needs_trust(tmp_path: Path) -> None:
    """Names of functions are written and followed only where pickles would be."""
    path, trusted = tmp_path / "d", tmp_path / "trusted"
    with ThermalDict.open(path) as d:
        d[1] = words(1)
        with pytest.raises(TypeError, match="trust=True"):
            d.regrow(1, words, 1)
        assert d[1] == words(1)
    with ThermalDict.open(trusted, trust=True, **ALWAYS) as d:
        d[1] = words(1)
        d.sync()
        d.regrow(1, words, 1)
        d.regrow("absent", words, 2)
    with pytest.raises(UntrustedError, match="recipe"):
        ThermalDict.open(trusted)
    with ThermalDict.open(trusted, trust=True) as d:
        assert d.where(1) is REGROWN
        assert d[1] == words(1)
        with pytest.raises(KeyError):
            d["absent"]
        d.check()


@pytest.mark.parametrize("how", [{"trust": True}, {"key": KEY}], ids=["trust", "key"])
def test_arguments_are_stored_as_values(tmp_path: Path, how: dict[str, Any]) -> None:
    """Arguments may be anything that the dict may store as a value, arrays too."""
    path = tmp_path / "d"
    numbers = np.arange(5000.0)
    with ThermalDict.open(path, **how, **ALWAYS) as d:
        d["sums"] = regrow_recipes.sums(numbers, 3)
        d.regrow("sums", regrow_recipes.sums, numbers, 3)
    with ThermalDict.open(path, **how, **ALWAYS) as d:
        assert d.where("sums") is REGROWN
        assert d["sums"] == regrow_recipes.sums(numbers, 3)
        d["sums"].append(1.0)
    with ThermalDict.open(path, **how) as d:
        assert d.where("sums") is not REGROWN
        assert d["sums"] == [*regrow_recipes.sums(numbers, 3), 1.0]


@pytest.mark.parametrize(
    "function",
    [lambda key: key, functools.partial(words, 1), [].append, type("Local", (), {}), record.__get__(1)],
    ids=["lambda", "partial", "bound method", "inner class", "bound function"],
)
def test_what_has_no_importable_name_is_refused(tmp_path: Path, function: Any) -> None:
    """A lambda, an inner function or a bound method cannot be found again: TypeError, and nothing has changed."""
    with pytest.raises(TypeError, match="top of a module"):
        ThermalDict.open(tmp_path / "none", regrow=function)
    assert not (tmp_path / "none").exists()
    with ThermalDict.open(tmp_path / "d", trust=True) as d:
        d[1] = 2
        with pytest.raises(TypeError, match="top of a module"):
            d.regrow(1, function)
        with pytest.raises((TypeError, pickle.PicklingError)):
            d.regrow(1, words, itertools.count())  # arguments that cannot be stored
        assert d == {1: 2}


def test_without_its_function_a_value_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not given and not trusted: UntrustedError; renamed: RegrowError; changed: RegrowError. The key stays."""
    path = tmp_path / "d"
    with ThermalDict.open(path, regrow=words, **ALWAYS) as d:
        d["k"] = words("k")
        d["other"] = [1]
    with ThermalDict.open(path) as d:
        assert d.where("k") is REGROWN
        with pytest.raises(UntrustedError, match="regrow="):
            d["k"]
        assert d["other"] == [1]
    with ThermalDict.open(path, trust=True, codec="safe", **ALWAYS) as d:
        assert d["k"] == words("k")
        assert d["new"] == words("new")
    with ThermalDict.open(path, regrow=regrow_recipes.other_words) as d:
        with pytest.raises(RegrowError, match="'k'"):
            d["k"]
        assert "k" in d
    with ThermalDict.open(path, regrow=regrow_recipes.words) as d:
        assert d["k"] == words("k")
    monkeypatch.delattr(regrow_recipes, "words")
    with ThermalDict.open(path, trust=True) as d:
        with pytest.raises(RegrowError, match="cannot be imported"):
            d["k"]
        del d["k"]
    with ThermalDict.open(path) as d:
        assert list(d) == ["other", "new"]


def test_another_process_regrows(tmp_path: Path) -> None:
    """A process with another hash seed gets the values back; sets, whose order it would not have, are stored."""
    path = tmp_path / "d"
    with ThermalDict.open(path, regrow=regrow_recipes.mixed, **ALWAYS) as d:
        for key in range(12):
            d[key] = regrow_recipes.mixed(key)
    program = (
        "import sys; from spectral_alloc import ThermalDict; import regrow_recipes\n"
        f"with ThermalDict.open({str(path)!r}, regrow=regrow_recipes.mixed) as d:\n"
        "    assert all(d[key] == regrow_recipes.mixed(key) for key in range(12)), dict(d)\n"
        "    print(d.stats().hits_cold)"
    )
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": places}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_transactions_snapshots_forks_and_readers(tmp_path: Path) -> None:
    """What a transaction undoes, a snapshot copies, a child and a reader see: regrown values like all others."""
    path = tmp_path / "d"
    with ThermalDict.open(path, regrow=words, **ALWAYS) as d:
        d.update((key, words(key)) for key in range(4))
        d.sync()
        with contextlib.suppress(ZeroDivisionError), d.transaction():
            d[0] = "undone"
            del d[1]
            raise ZeroDivisionError
        with d.transaction():
            d[4] = words(4)
        assert d == {key: words(key) for key in range(5)}
        d.snapshot(tmp_path / "copy")
        child = os.fork()
        if child == 0:
            os._exit(0 if all(d[key] == words(key) for key in range(5)) else 1)
        assert os.waitpid(child, 0)[1] == 0
        with ThermalDict.open(path, regrow=words, readonly=True) as reader:
            assert reader == d
            with pytest.raises(OSError, match="only be read"):
                reader.regrow(1, words, 1)
        d.check()
    with ThermalDict.open(tmp_path / "copy", regrow=words) as d:
        assert d.where(2) is REGROWN
        assert d == {key: words(key) for key in range(5)}


def test_compaction_and_repair_keep_recipes(tmp_path: Path) -> None:
    """Records of recipes are moved as such, and set aside segments give them back."""
    path = tmp_path / "d"
    with ThermalDict.open(path, regrow=words, segment_bytes=1 << 14, **ALWAYS) as d:
        for turn in range(30):
            d.update((key, [turn, "filler" * 40]) for key in range(100, 140))
            d[turn] = words(turn)
            d.sync()
        d._tiers.compact_segments(d, {s.number for s in d._journal.log.log_segments})  # type: ignore[union-attr]
        d.check()
        assert d.stats().regrown_entries + d.stats().hot_entries == len(d)
    assert verify(path).damage == ()
    segment = max(path.glob("log-*"), key=lambda file: file.stat().st_size)
    data = bytearray(segment.read_bytes())
    at = data.index(b"filler")
    data[at] ^= 1
    segment.write_bytes(data)
    assert verify(path).damage
    repair(path)
    assert verify(path).damage == ()
    with ThermalDict.open(path, regrow=words) as d:
        assert [d.where(key) for key in range(30)] == [REGROWN] * 30
        assert all(d[key] == words(key) for key in range(30))


def test_a_planted_recipe_is_never_run(tmp_path: Path) -> None:
    """A record that names any function is refused without trust, whatever its flags say, and does not crash with it."""
    path = tmp_path / "d"
    with ThermalDict.open(path) as d:
        d["good"] = 1
        journal = d._journal
        for number, (found, flags) in enumerate(
            [((b"x" * 16, "os:getcwd", True), 0), ((b"x" * 16, "os:getcwd", False), 0), ((1, 2, 3), 0), (5, 0)]
        ):
            parts = [b"\xd6" + _safe.encode(found), _safe.encode(())]
            frame = d._tiers.codec.encode(parts, [1, 1])
            journal.log.commit([Record(_log.REGROWN, b"s%d" % number, frame, flags)])  # type: ignore[union-attr]
    with ThermalDict.open(path) as d:
        for key in ("0", "1"):
            with pytest.raises(UntrustedError):
                d[key]
        for key in ("2", "3"):
            with pytest.raises(CorruptFrameError, match="no recipe"):
                d[key]
        assert d["good"] == 1
    with ThermalDict.open(path, trust=True) as d:
        with pytest.raises(RegrowError):
            d["0"]
        with pytest.raises((RegrowError, TypeError)):
            d["1"]


def test_names_of_functions() -> None:
    """A name leads back to its function, also one inside a class."""
    for function in (words, sorted, Path.exists):
        assert named_function(name_of_function(function)) is function
