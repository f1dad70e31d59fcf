"""A disk that is full, or fails, at any operation: an error, nothing promised lost, and the dict works on
afterwards."""

import errno
import random
from typing import Any

import pytest
from durable_model import PATH, Bench, copied
from simulated import ROOT, SimulatedFileSystem

from spectral_alloc import LockedError, ThermalDict

MODES = ("none", "interval", "always")
KINDS = ["set", "set", "set", "delete", "edit", "get", "sync", "transaction", "time", "compact", "seal", "reopen"]


def script_of(seed: int, length: int) -> list[tuple[Any, ...]]:
    """Random operations; the same for the same seed."""
    chance = random.Random(seed)
    script: list[tuple[Any, ...]] = []
    for number in range(length):
        key = f"k{chance.randrange(8)}"
        kind = chance.choice(KINDS)
        arguments: dict[str, tuple[Any, ...]] = {
            "set": (key, [number] * chance.randrange(40)),
            "delete": (key,),
            "edit": (key, number),
            "get": (key,),
            "transaction": ([(key, number), ("k1", [number])],),
        }
        script.append((kind, *arguments.get(kind, ())))
    return script


def run_stubbornly(bench: Bench, operation: tuple[Any, ...], disk: SimulatedFileSystem) -> bool:
    """Do an operation; when the disk refuses, the dict must be as before it or as after it. Says whether it did
    refuse."""
    before, written = list(bench.model.items()), bench.written[-1]
    try:
        bench.run(operation)
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.EIO), error
    else:
        return False
    if bench.subject.closed:
        disk.heal()
        bench.subject = ThermalDict.open(PATH, **bench.settings)
    found = [(key, copied(value)) for key, value in bench.subject.items()]
    # A key that was deleted and put back comes back at the end of the order.
    assert sorted(found, key=repr) in (sorted(before, key=repr), sorted(bench.model.items(), key=repr)), operation
    bench.model = dict(found)
    has_happened = sorted(found, key=repr) != sorted(before, key=repr)
    keys = [key for key, _ in operation[1]] if operation[0] == "transaction" else operation[1:2]
    bench.note(dict.fromkeys(keys, len(bench.moments)) if has_happened and operation[0] != "edit" else {})
    if not has_happened:
        bench.written[-1] = written
    bench.subject.check()
    return True


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("mode", MODES)
def test_a_failing_operation_loses_nothing(mode: str, error: int, long_mode: bool) -> None:
    """One operation of the disk fails, whichever: what was promised is found after a crash, and the dict goes on."""
    script = script_of(11, 150 if long_mode else 45)
    operation, refusals, step = 0, 0, 1 if long_mode else 3
    while True:
        operation += step
        disk = SimulatedFileSystem()
        bench = Bench(disk, durability=mode)
        disk.fail_at(operation, OSError(error, "injected"), times=2)
        for number, step_of_script in enumerate(script):
            refusals += run_stubbornly(bench, step_of_script, disk)
            if number % 8 == 0:
                left = bench.found_on(disk.survivor(random.Random(number)))
                assert bench.may_be(left, *bench.where), (operation, number, step_of_script)
        disk.heal()
        bench.subject.sync()
        bench.subject.check()
        expected = list(bench.subject.items())
        bench.subject.close()
        assert bench.found_on(disk.survivor(random.Random(1))) == expected
        if not disk.failures:
            break
    assert refusals > 5


def test_a_disk_that_fills_up_and_is_emptied(tmp_path_factory: pytest.TempPathFactory) -> None:
    """While the disk is full every commit is refused and the dict can be read; when there is room all is committed."""
    disk = SimulatedFileSystem()
    subject = ThermalDict.open(PATH, file_system=disk)
    subject["before"] = [1]
    subject.sync()
    disk.disk_bytes = disk._used() + 100
    subject.update((f"k{number}", [number] * 50) for number in range(50))
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            subject.sync()
        assert subject["before"] == [1]
        assert subject["k7"] == [7] * 50
    subject.check()
    disk.heal()
    subject.sync()
    expected = list(subject.items())
    left = disk.survivor(random.Random(2))
    subject.close()
    with ThermalDict.open(PATH, file_system=left) as again:
        assert list(again.items()) == expected


def test_the_disk_limit_refuses(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A commit beyond disk_limit raises ENOSPC that names the limit; what was committed stays, and deleting makes
    room."""
    disk = SimulatedFileSystem()
    subject = ThermalDict.open(PATH, file_system=disk, disk_limit=200_000, segment_bytes=20_000)
    subject.update((number, str(number) * 100) for number in range(100))
    subject.sync()
    subject["large"] = bytes(random.Random(1).randbytes(190_000))
    with pytest.raises(OSError, match="disk_limit of 200 kB"):
        subject.sync()
    del subject["large"]
    subject["small"] = 1
    subject.sync()
    subject.close()
    with ThermalDict.open(PATH, file_system=disk) as again:
        assert again["small"] == 1
        assert len(again) == 101


def test_a_failing_write_through_leaves_the_dict_as_it_was() -> None:
    """With durability="always" a write that cannot be settled raises and has not happened."""
    disk = SimulatedFileSystem()
    subject = ThermalDict.open(PATH, file_system=disk, durability="always")
    subject["a"] = [1]
    disk.fail_at(1, OSError(errno.EIO, "injected"), times=1)
    with pytest.raises(OSError, match="injected"):
        subject["a"] = [2]
    disk.heal()
    assert subject["a"] == [1]
    with pytest.raises(TypeError, match="without pickle"):
        subject["b"] = object()
    assert list(subject) == ["a"]
    subject["a"] = [3]
    subject.close()


def test_one_writer_many_readers() -> None:
    """A second writer is refused by name; readers see what was committed when they opened."""
    disk = SimulatedFileSystem()
    subject = ThermalDict.open(PATH, file_system=disk)
    subject["a"] = 1
    subject.sync()
    with pytest.raises(LockedError, match="readonly=True"):
        ThermalDict.open(PATH, file_system=disk)
    readers = [ThermalDict.open(PATH, file_system=disk, readonly=True) for _ in range(3)]
    subject["a"] = 2
    subject.sync()
    assert [reader["a"] for reader in readers] == [1, 1, 1]
    with pytest.raises(OSError, match="only be read"):
        readers[0]["a"] = 3
    for reader in readers:
        reader.close()
    subject.snapshot(ROOT + "/copy")
    subject["a"] = 4
    subject.close()
    with ThermalDict.open(ROOT + "/copy", file_system=disk) as copy:
        assert dict(copy) == {"a": 2}
    with pytest.raises(FileExistsError):
        ThermalDict.open(PATH, file_system=disk).snapshot(ROOT + "/copy")
