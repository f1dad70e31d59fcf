"""From open to close and beyond: bad settings, closed dicts, what is left on disk, copies and pickles."""

import asyncio
import copy
import fcntl
import gc
import math
import os
import pickle
import signal
import stat
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from memory_cage import children_environment

import spectral_alloc
from spectral_alloc import Residency, ThermalDict
from spectral_alloc.errors import ClosedError
from spectral_alloc.units import BYTES_MAX

Make = Callable[..., ThermalDict]
ABSURD_TEXTS = ["-1 GB", "nan", "inf", "NaN GB", "1e3", "", "many", "5 XB", "1 GB GB"]
ABSURD_LIMITS = [-1, -(10**30), BYTES_MAX + 1, 10**30, *ABSURD_TEXTS]
WRONG_TYPES = [1.5, math.nan, math.inf, True, b"1 GB", [], (), object(), Decimal(10), 1j]


def private_directories(parent: Path) -> list[Path]:
    """The directories that dicts made below ``parent``."""
    return sorted(parent.glob("spectral_alloc-*"))


# bad settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["memory_limit", "disk_limit"])
@pytest.mark.parametrize("limit", ABSURD_LIMITS + WRONG_TYPES, ids=repr)
def test_a_bad_limit_is_refused_by_name(tmp_path: Path, name: str, limit: Any) -> None:
    """A negative, absurd or odd limit is a ValueError, another type a TypeError; both name it, and no file is left."""
    expected = ValueError if isinstance(limit, (int, str)) and limit is not True else TypeError
    with pytest.raises(expected) as caught:
        ThermalDict.open(**{"spill_dir": tmp_path, name: limit})
    assert name in str(caught.value)
    assert repr(limit) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", ABSURD_LIMITS + WRONG_TYPES, ids=repr)
def test_a_bad_new_limit_changes_nothing(tiny: Make, limit: Any) -> None:
    """Setting a bad limit on a dict or on the process raises, and the old limits are in force afterwards."""
    subject = tiny({"a": [1]}, memory_limit="1 MB")
    process_limit = spectral_alloc.get_memory_limit()
    with pytest.raises((ValueError, TypeError), match="memory_limit"):
        subject.memory_limit = limit
    with pytest.raises((ValueError, TypeError), match="limit"):
        spectral_alloc.set_memory_limit(limit)
    assert subject.memory_limit == 1_000_000
    assert spectral_alloc.get_memory_limit() == process_limit
    assert subject == {"a": [1]}


@pytest.mark.parametrize(
    ("setting", "value", "error"),
    [
        ("codec", "zip", ValueError),
        ("codec", "ZSTD", ValueError),
        ("codec", 3, (ValueError, TypeError)),
        ("aliasing", "perhaps", ValueError),
        ("aliasing", None, ValueError),
        ("spill_dir", 5, TypeError),
        ("spill_dir", b"/tmp", TypeError),
        ("spill_dir", "", FileNotFoundError),
        ("unheard_of", 1, TypeError),
    ],
)
def test_a_bad_setting_is_refused_by_name(tmp_path: Path, setting: str, value: Any, error: Any) -> None:
    """An unknown codec, aliasing mode or setting raises before anything is made, and the text names what was given."""
    with pytest.raises(error) as caught:
        ThermalDict.open(**({"spill_dir": tmp_path, "memory_limit": 1} | {setting: value}))
    assert repr(value) in str(caught.value) or setting in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_spill_directory_is_refused_by_name(tmp_path: Path) -> None:
    """A spill directory that is missing, a file, read-only or open to all raises at once and names the path."""
    file, locked, public = tmp_path / "file", tmp_path / "locked", tmp_path / "public"
    file.write_text("not a directory")
    locked.mkdir(mode=0o500)
    public.mkdir()
    public.chmod(0o777)
    cases = {
        tmp_path / "missing": FileNotFoundError,
        file: NotADirectoryError,
        file / "below": (NotADirectoryError, FileNotFoundError),
        locked: PermissionError,
        public: PermissionError,
    }
    for path, error in cases.items():
        with pytest.raises(error) as caught:
            ThermalDict.open(spill_dir=path)
        assert str(path) in str(caught.value)
    assert not (tmp_path / "missing").exists()
    assert list(locked.iterdir()) == list(public.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_another_users_spill_directory_is_refused(tmp_path: Path) -> None:
    """A spill directory that belongs to another user is refused by name and owner, even for root."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 4242, 4242)
    with pytest.raises(PermissionError, match=r"another user.*4242") as caught:
        ThermalDict.open(spill_dir=theirs)
    assert str(theirs) in str(caught.value)
    assert list(theirs.iterdir()) == []


# closed dicts -------------------------------------------------------------------------------------------------------

USES: dict[str, Callable[[Any], Any]] = {
    "len": len,
    "bool": bool,
    "iter": iter,
    "list": list,
    "reversed": reversed,
    "in": lambda d: "a" in d,
    "d[k]": lambda d: d["a"],
    "d[k] = v": lambda d: d.__setitem__("a", 1),
    "del d[k]": lambda d: d.__delitem__("a"),
    "get": lambda d: d.get("a"),
    "get_many": lambda d: d.get_many(["a"]),
    "setdefault": lambda d: d.setdefault("a", 1),
    "pop": lambda d: d.pop("a", None),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
    "update": lambda d: d.update(a=1),
    "copy": lambda d: d.copy(),
    "keys": lambda d: d.keys(),
    "values": lambda d: d.values(),
    "items": lambda d: d.items(),
    "==": lambda d: d == {},
    "!=": lambda d: d != {},
    "|": lambda d: d | {},
    "reversed |": lambda d: {} | d,
    "|=": lambda d: d.__ior__({}),
    "dict()": dict,
    "**": lambda d: {**d},
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "stats": lambda d: d.stats(),
    "where": lambda d: d.where("a"),
    "temperature": lambda d: d.temperature("a"),
    "thermal_status": lambda d: d.thermal_status(),
    "check": lambda d: d.check(),
    "pin": lambda d: d.pin("a"),
    "unpin": lambda d: d.unpin("a"),
    "promote": lambda d: d.promote("a"),
    "demote": lambda d: d.demote("a"),
    "prefetch": lambda d: d.prefetch(["a"]),
    "aget": lambda d: asyncio.run(d.aget("a")),
    "on_move": lambda d: d.on_move(print),
    "regrow": lambda d: d.regrow("a", list),
    "sync": lambda d: d.sync(),
    "transaction": lambda d: d.transaction(),
    "snapshot": lambda d: d.snapshot("/nowhere"),
    "memory_limit": lambda d: d.memory_limit,
    "memory_limit =": lambda d: setattr(d, "memory_limit", 1),
    "with": lambda d: d.__enter__(),
    "fromkeys": lambda d: d.fromkeys(["a"]),
    "open": lambda d: d.open(),
}


@pytest.mark.parametrize("use", USES)
def test_a_closed_dict_refuses(tiny: Make, use: str) -> None:
    """Every method and protocol of a closed dict raises ClosedError, and closing it again stays fine."""
    subject = tiny({"a": [1], "b": [2]})
    subject.close()
    with pytest.raises(ClosedError, match="closed"):
        USES[use](subject)
    assert subject.closed
    subject.close()


def test_every_public_name_is_tried_on_a_closed_dict() -> None:
    """The table above covers each public method and property of ThermalDict."""
    tried = " ".join(USES).split()
    names = {name for name in dir(ThermalDict) if not name.startswith("_")} - {"close", "closed"}
    assert names - set(tried) == set()


def test_views_and_iterators_of_a_closed_dict_find_nothing(tiny: Make) -> None:
    """A view or iterator made before close() raises or is empty; it does not show cells or crash."""
    subject = tiny({"a": [1], "b": [2]})
    keys, values, items, walk = subject.keys(), subject.values(), subject.items(), iter(subject.values())
    assert next(walk) == [1]
    subject.close()
    for use in (lambda: list(keys), lambda: list(values), lambda: list(items), lambda: list(walk)):
        with suppress(ClosedError, RuntimeError):
            assert use() == []


def test_closing_gives_everything_back(tmp_path: Path) -> None:
    """close() removes files and descriptors at once, values that the caller holds live on, and repr says closed."""
    before = len(os.listdir("/proc/self/fd"))
    subject = ThermalDict.open(memory_limit=1, spill_dir=tmp_path)
    subject.update((number, [number]) for number in range(100))
    held = subject[7]
    assert private_directories(tmp_path)
    assert not subject.closed
    subject.close()
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before
    assert held == [7]
    assert "closed" in repr(subject)


def test_the_with_statement_closes(tmp_path: Path) -> None:
    """Leaving a with block closes the dict, by an exception too, which is passed on."""
    with ThermalDict.open(memory_limit=1, spill_dir=tmp_path) as subject:
        subject.update((number, [number]) for number in range(10))
        assert subject[3] == [3]
    assert subject.closed
    with (
        pytest.raises(ZeroDivisionError),
        ThermalDict.open(memory_limit=1, spill_dir=tmp_path) as subject,
    ):
        subject.update((number, [number]) for number in range(10))
        raise ZeroDivisionError
    assert subject.closed
    assert list(tmp_path.iterdir()) == []


def test_a_class_made_in_a_function_goes_with_the_dict_that_named_it(tiny: Make) -> None:
    """A class whose instance was cold does not outlive the dict, even if its methods refer to that dict."""

    def fill() -> weakref.ref[type]:
        d = ThermalDict.open(memory_limit=1)

        class Local:
            def size(self) -> int:
                """Refer to the dict that holds the instance."""
                return len(d)

        d["instance"] = Local()
        assert d.where("instance") is Residency.COLD
        assert type(d["instance"]) is Local
        return weakref.ref(Local)

    reference = fill()
    gc.collect()
    assert reference() is None


def test_a_dict_that_is_dropped_removes_its_files(tmp_path: Path) -> None:
    """Without close() the files go when the last reference to the dict does."""
    subject = ThermalDict.open(memory_limit=1, spill_dir=tmp_path)
    subject.update((number, [number]) for number in range(10))
    assert private_directories(tmp_path)
    del subject
    for _ in range(200):
        if not private_directories(tmp_path):
            break
        signal.sigtimedwait([], 0.05)  # the background writer may hold it for the length of one turn
    assert list(tmp_path.iterdir()) == []


# what is on disk ----------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
from spectral_alloc import ThermalDict
d = ThermalDict.open(memory_limit=1, spill_dir=sys.argv[1])
d.update((n, [n] * 50) for n in range(1000))
assert len(os.listdir(sys.argv[1])) == 1
assert all(d[n] == [n] * 50 for n in range(1000))
print("whole", flush=True)
"""
ENDINGS = {
    "returning": "",
    "sys.exit": "sys.exit(0)",
    "an exception": "raise SystemExit(0) from ValueError()",
    "a global cycle": "d['self'] = d; cycle = [d]; cycle.append(cycle)",
}


def run_child(spill_dir: Path, ending: str) -> subprocess.CompletedProcess[str]:
    """Run a program that fills a dict, reads it back, and ends in some way without closing it."""
    command = [sys.executable, "-c", CHILD + ending, str(spill_dir)]
    return subprocess.run(command, env=children_environment(), capture_output=True, text=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_leaving_without_closing_loses_only_the_files(tmp_path: Path, ending: str) -> None:
    """A program that ends without close() has read all its values, prints no complaint, and leaves no file."""
    child = run_child(tmp_path, ENDINGS[ending])
    assert (child.returncode, child.stdout, child.stderr) == (0, "whole\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_crashed_process_is_cleaned_up_after(tmp_path: Path) -> None:
    """The directory of a process that was killed is removed by the next dict there; those of the living stay."""
    living = ThermalDict.open(memory_limit=1, spill_dir=tmp_path)
    living.update((number, [number]) for number in range(10))
    (own,) = private_directories(tmp_path)
    (tmp_path / "spectral_alloc-notes.txt").write_text("not ours")
    living_names = {own.name, "spectral_alloc-notes.txt"}
    # The child's own check of one directory is for an empty parent.
    child = subprocess.run(
        [sys.executable, "-c", CHILD.replace("== 1", "== 3") + "os.kill(os.getpid(), signal.SIGKILL)", str(tmp_path)],
        env=children_environment(),
        capture_output=True,
        text=True,
    )
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, "whole\n"), child.stderr
    assert len(os.listdir(tmp_path)) == 3
    successor = ThermalDict.open(memory_limit=1, spill_dir=tmp_path)
    successor["a"] = [1]
    successor.sync()
    assert successor.where("a") is Residency.COLD
    assert len(os.listdir(tmp_path)) == 3
    assert living_names < set(os.listdir(tmp_path))
    assert [living[number] for number in range(10)] == [[number] for number in range(10)]
    successor.close()
    living.close()
    assert os.listdir(tmp_path) == ["spectral_alloc-notes.txt"]


def test_spill_files_are_private_and_locked(tiny: Make, tmp_path: Path) -> None:
    """The directory has mode 0700 and its files 0600, whatever the umask, and its lock is taken."""
    old = os.umask(0)
    try:
        subject = tiny((number, [number]) for number in range(10))
    finally:
        os.umask(old)
    directory = Path(subject._tiers.store.directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    names = sorted(path.name for path in directory.iterdir())
    assert "lock" in names
    assert len(names) >= 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    with (directory / "lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_dicts_do_not_share_a_directory(tiny: Make) -> None:
    """Each dict has a directory of its own, and closing one leaves the other's values readable."""
    one, other = (tiny((number, [name]) for number in range(10)) for name in ("one", "other"))
    assert one._tiers.store.directory != other._tiers.store.directory
    one.close()
    assert [other[number] for number in range(10)] == [["other"]] * 10


def test_nothing_is_written_before_it_must(tmp_path: Path) -> None:
    """A dict that fits its limit makes no directory and no file."""
    with ThermalDict.open(memory_limit="10 MB", spill_dir=tmp_path) as subject:
        subject.update((number, [number]) for number in range(1_000))
        assert list(tmp_path.iterdir()) == []


# copies and pickles -------------------------------------------------------------------------------------------------


class Named(ThermalDict):
    """A subclass with an attribute of its own."""


DUPLICATES: dict[str, Callable[[Any], Any]] = {
    "copy method": lambda d: d.copy(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {p}": (lambda d, p=p: pickle.loads(pickle.dumps(d, p))) for p in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("duplicate", DUPLICATES)
@pytest.mark.parametrize("limit", [1, "1 MB", None])
def test_duplicates_keep_class_settings_and_order(tmp_path: Path, duplicate: str, limit: Any) -> None:
    """A copy or pickle of a dict whose values are away has its class, settings, order and values, and is its own."""
    with Named.open(memory_limit=limit, codec="lz4", aliasing="copy", spill_dir=tmp_path, disk_limit="1 MB") as subject:
        subject.update((number, {"n": [number]}) for number in (3, 1, 2))
        subject.name = "original"
        with DUPLICATES[duplicate](subject) as made:
            assert type(made) is Named
            assert made.memory_limit == subject.memory_limit
            assert (made._settings.codec, made._settings.aliasing) == ("lz4", "copy")
            assert made._settings.spill_dir == str(tmp_path)
            assert made._settings.disk_limit_bytes == 1_000_000
            assert list(made) == [3, 1, 2]
            assert made == subject == {number: {"n": [number]} for number in (3, 1, 2)}
            if duplicate != "copy method":
                assert made.name == "original"
            made[4] = 4
            del made[1]
            assert list(subject) == [3, 1, 2]
            made.check()
        assert subject[2] == {"n": [2]}


def test_a_pickle_is_at_home_where_its_directory_is_missing(tmp_path: Path) -> None:
    """Loaded where its spill directory does not exist, a dict uses the system's directory, with all its values."""
    spill_dir = tmp_path / "gone"
    spill_dir.mkdir(mode=0o700)
    with ThermalDict.open(memory_limit=1, spill_dir=spill_dir) as subject:
        subject.update((number, [number]) for number in range(100))
        pickled = pickle.dumps(subject)
    spill_dir.rmdir()
    with pickle.loads(pickled) as made:
        assert made.memory_limit == 1
        assert made == {number: [number] for number in range(100)}
        assert made.where(5) is Residency.COLD
    assert not spill_dir.exists()
