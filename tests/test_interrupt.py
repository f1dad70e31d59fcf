"""Ctrl-C at any moment: the dict has the old or the new value, its invariants hold, and work goes on."""

import _thread
import copy
import functools
import operator
import os
import signal
import subprocess
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from conftest import open_files
from tiny import assert_all_cold

import spectral_alloc
from spectral_alloc import ThermalDict
from spectral_alloc.cold_store import ColdStore
from spectral_alloc.file_system import OpenFile

PACKAGE = str(Path(spectral_alloc.__file__ or "").parent)
ABSENT = "absent"


def start() -> dict[str, Any]:
    """What is in the dict before: new objects at each call, also strings: a value that a test holds cannot leave."""
    return {
        "list": list(range(300)),
        "record": {"name": "spectral", "parts": [bytearray(b"x" * 300), (1, 2)]},
        "text": str(list(range(150))),
        "number": int("12345"),
        "more": ["words"] * 200,
    }


def new() -> dict[str, Any]:
    """What some operations write."""
    return {"list": ["new"], "fresh": list(range(200)), "text": str(list(range(99))), "record": None}


KEYS = list(start())


class Token:
    """What dies when the tracing function returns."""


class Trigger(weakref.ref[Token]):
    """Sends the signal when its token dies, in C code alone, so that it is delivered in the traced code.

    A tracing function that raised would strike where no real Ctrl-C can: CPython looks for signals after calls, at the
    start of functions and at backward jumps, and an exception there is inside the ``try`` that the call is in.
    """

    send = staticmethod(functools.partial(_thread.interrupt_main, signal.SIGINT))


def interrupted(work: Callable[[], object], event_count: int) -> bool:
    """Run ``work`` with Ctrl-C at the ``event_count``-th line of our Python code; False if it has fewer lines."""
    seen = 0
    triggers: list[Trigger] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event in ("line", "call"):
            seen += 1
            if seen == event_count:
                # Or the tracing function itself would be the next to look for signals.
                sys.settrace(None)
                token = Token()
                triggers.append(Trigger(token, operator.methodcaller("send")))
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(before)
        time.sleep(0)  # a Ctrl-C that came with the last line is delivered here at the latest
    except KeyboardInterrupt:
        assert seen >= event_count
    return seen >= event_count


@pytest.fixture(autouse=True)
def quiet_destructors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Ctrl-C in a destructor or finaliser is printed by CPython and not raised: let it pass, and nothing else."""
    others: list[Any] = []

    def hook(given: Any) -> None:
        if given.exc_type is not KeyboardInterrupt:
            others.append(given.exc_value)
            return
        # What a destructor written in Python cannot be kept from: a file of which it was to close the descriptor.
        for frame, _ in traceback.walk_tb(given.exc_traceback):
            file = frame.f_locals.get("self")
            if isinstance(file, OpenFile) and frame.f_code.co_name == "__del__" and file.fd >= 0:
                with suppress(OSError):
                    os.close(file.fd)
                file.fd = -1

    monkeypatch.setattr(sys, "unraisablehook", hook)
    yield
    assert not others
    # Ctrl-C between the return of os.open and the assignment loses the descriptor, in any Python program.
    for descriptor, target in open_files().items():
        if target.startswith(str(tmp_path)) and target.endswith("(deleted)"):
            os.close(int(descriptor))


def compact(subject: ThermalDict) -> None:
    """Move what is live out of segments that are mostly dead."""
    subject._tiers.store.seal()
    subject._tiers.compact(subject)


def classify_anew(subject: ThermalDict) -> None:
    """Values of a class that is examined for the first time leave."""
    made = type("Made", (), {})
    made.__module__, made.__qualname__ = __name__, "Made"
    setattr(sys.modules[__name__], "Made", made)  # noqa: B010  # mypy: the module has no such name
    subject["fresh"] = made()
    subject["fresh"] = list(range(200))


OPERATIONS: dict[str, tuple[Callable[[ThermalDict], object], dict[str, Any]]] = {
    "set a new key": (lambda d: d.__setitem__("fresh", list(range(200))), {"fresh": list(range(200))}),
    "overwrite": (lambda d: d.__setitem__("list", ["new"]), {"list": ["new"]}),
    "overwrite by text": (lambda d: d.__setitem__("text", new()["text"]), {"text": new()["text"]}),
    "update": (lambda d: d.update(new()), new()),
    "setdefault": (
        lambda d: [d.setdefault("fresh", list(range(200))), d.setdefault("list")],
        {"fresh": list(range(200))},
    ),
    "get": (lambda d: [d[key] for key in KEYS], {}),
    "get twice": (lambda d: [d["text"], d["text"], d["text"], d["number"], d["number"]], {}),
    "iterate": (lambda d: [list(d.items()), list(d.values()), d == start()], {}),
    "delete": (lambda d: d.__delitem__("record"), {"record": ABSENT}),
    "delete all": (lambda d: [d.__delitem__(key) for key in KEYS], dict.fromkeys(KEYS, ABSENT)),
    "pop": (lambda d: [d.pop("text"), d.pop("list")], {"text": ABSENT, "list": ABSENT}),
    "popitem": (lambda d: d.popitem(), {"more": ABSENT}),
    "clear": (lambda d: d.clear(), dict.fromkeys(KEYS, ABSENT)),
    "promote and demote": (lambda d: [(d.promote(k), d.demote(k), d.demote(k)) for k in KEYS], {}),
    "pin": (lambda d: [d.pin("list"), d.unpin("list")], {}),
    "prefetch": (lambda d: [setattr(d, "memory_limit", 50_000), d.prefetch(KEYS), d.get_many(KEYS)], {}),
    "spill": (lambda d: [setattr(d, "memory_limit", 50_000), [d.promote(k) for k in KEYS], d.sync()], {}),
    "stay and leave": (
        lambda d: [setattr(d, "memory_limit", 10**6), d.update(new()), setattr(d, "memory_limit", 1)],
        new(),
    ),
    "compact": (compact, {}),
    "classify": (classify_anew, {"fresh": "anything"}),
    "stats": (lambda d: [d.stats(), d.check(), d.where("list"), d.thermal_status()], {}),
}


def is_one_of(found: Any, old: Any, new: Any) -> bool:
    """Is this the old or the new value?"""
    return found in (old, new) or (isinstance(new, str) and new == "anything")


def verify(subject: ThermalDict, changes: dict[str, Any]) -> None:
    """Every key has the old or the new value, the invariants hold, and everything can leave and come back again."""
    subject.memory_limit = 1
    subject.check()
    originals = start()
    for key in originals | changes:
        old = originals.get(key, ABSENT)
        assert is_one_of(subject.get(key, ABSENT), old, changes.get(key, old)), key
    subject["after"] = ["work", "goes", "on"]
    subject["list"] = start()["list"]
    subject["list"].append("edited")
    assert subject["list"] == [*start()["list"], "edited"]
    del subject["list"]
    for key in changes:
        subject.pop(key, None)
    subject.stats()
    assert_all_cold(subject)
    subject.check()
    assert subject["after"] == ["work", "goes", "on"]
    subject.clear()
    subject.check()


@pytest.mark.parametrize("name", OPERATIONS)
def test_interrupted_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_mode: bool, name: str
) -> None:
    """Whatever line Ctrl-C strikes at, each key has its old or its new value, and check() and later work succeed."""
    monkeypatch.setitem(ColdStore.__init__.__kwdefaults__, "segment_bytes", 1500)
    operation, changes = OPERATIONS[name][0], copy.deepcopy(OPERATIONS[name][1])
    # A stride that shares no factor with loops of ours; in the long mode every line is struck.
    event_count, struck, strides = 1, True, 1 if long_mode else 11
    while struck:
        subject = ThermalDict.open(memory_limit=1, spill_dir=tmp_path)
        subject.update({"dead": os.urandom(700)} | start())
        subject["list"].append(0)
        subject["list"] = start()["list"]
        del subject["dead"]
        subject.stats()
        struck = interrupted(functools.partial(operation, subject), event_count)
        if struck:
            verify(subject, changes)
        subject.close()
        event_count += strides
    assert event_count > strides
    assert list(tmp_path.iterdir()) == []


def test_interrupted_opening_and_closing(tmp_path: Path, long_mode: bool) -> None:
    """A constructor that was interrupted leaves nothing, and an interrupted close is finished by the next one."""
    for work in ("open", "close"):
        event_count, struck = 1, True
        while struck:
            subjects = [ThermalDict.open(memory_limit=1, spill_dir=tmp_path)]
            subjects[0].update(start())
            if work == "close":
                struck = interrupted(subjects[0].close, event_count)
            else:
                struck = interrupted(
                    lambda opened=subjects: opened.append(ThermalDict.open(memory_limit=1, spill_dir=tmp_path)),
                    event_count,
                )
                assert subjects[0] == start()
                subjects[0].check()
            for subject in subjects:
                subject.close()
                subject.close()
                assert subject.closed
            assert list(tmp_path.iterdir()) == []
            event_count += 1 if long_mode else 2


CHILD = """
import gc, random, signal, sys, threading, time
from spectral_alloc import ThermalDict
from spectral_alloc.cold_store import ColdStore

ColdStore.__init__.__kwdefaults__["segment_bytes"] = 64 << 10
seconds, spill_dir = float(sys.argv[1]), sys.argv[2]
subject = ThermalDict.open(memory_limit=60_000, spill_dir=spill_dir)
model, dice, struck = {}, random.Random(7), 0
# Destructors print a Ctrl-C and go on.
sys.unraisablehook = lambda given: None if given.exc_type is KeyboardInterrupt else sys.__unraisablehook__(given)


def act(key, new):
    kind = dice.randrange(8)
    if kind < 4:
        subject[key] = new
    elif kind == 4:
        subject.pop(key, None)
    elif kind == 5:
        subject.get(key)
    elif kind == 6:
        subject.demote(key) if key in subject else None
    else:
        subject.sync()
    return kind


end = time.monotonic() + seconds
count = 0
signal.signal(signal.SIGALRM, signal.default_int_handler)


def run():
    # A function, since on 3.13 a signal at the head of a loop in the try of a module was seen to escape its handler.
    global key, old, new, count
    signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0002, 0.002))
    while time.monotonic() < end:
        key, count = dice.randrange(100), count + 1
        old, new = model.get(key), [key, count, "x" * dice.randrange(900)]
        allowed = [old, new[:], None]
        act(key, new)
        found = subject.get(key)
        assert found in allowed, (key, found, allowed)
        model[key] = None if found is None else found[:]
        old = new = found = allowed = None
    signal.setitimer(signal.ITIMER_REAL, 0)


key = 0
while True:
    try:
        run()
        break
    except KeyboardInterrupt:
        struck += 1
        found = subject.get(key)
        assert found is None or found == model.get(key) or found[:2] == [key, count], (key, found)
        model[key] = None if found is None else found[:]
        del found
        if struck % 20 == 0:
            subject.check()
subject.check()
for key in range(100):
    assert subject.get(key) == model.get(key), key
old = new = found = allowed = None
subject.memory_limit = 1
stats = subject.stats()
assert (stats.hot_entries, stats.warm_entries) == (0, 0), stats
subject.check()
subject.clear()
gc.collect()
subject.check()
print(struck)
subject.close()
"""


def test_real_signals(tmp_path: Path, long_mode: bool) -> None:
    """A process that is sent signals hundreds of times a second keeps every value, its invariants, and no file."""
    arguments = [sys.executable, "-c", CHILD, "30" if long_mode else "2", str(tmp_path)]
    child = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) > 50
    assert list(tmp_path.iterdir()) == []
