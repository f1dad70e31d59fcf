"""aget and awaited prefetch: slow reads stay off the event loop."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from faults import FaultyFileSystem
from tiny import assert_all_cold

from spectral_alloc import Residency, ThermalDict

PATIENCE_SECONDS = 60
VALUE = list(range(500))


def test_hot_cold_missing_and_default(tiny: Callable[..., ThermalDict]) -> None:
    """aget gives what d[k] and d.get(k, default) give."""

    async def main() -> None:
        subject = tiny({"cold": VALUE[:], "none": None})
        subject["hot"] = held = [1]
        assert subject.where("hot") is Residency.HOT
        assert await subject.aget("hot") is held
        assert await subject.aget("cold") == VALUE
        assert await subject.aget("cold", "default") == VALUE
        assert await subject.aget("none", "default") is None
        assert await subject.aget("missing", "default") == "default"
        assert await subject.aget("missing", None) is None
        with pytest.raises(KeyError, match="missing"):
            await subject.aget("missing")
        with pytest.raises(TypeError, match="unhashable"):
            await subject.aget([])
        subject.check()

    asyncio.run(main())


def test_edit_of_an_awaited_value_stays(tiny: Callable[..., ThermalDict]) -> None:
    """What aget returns is the entry's own object."""

    async def main() -> None:
        subject = tiny({"k": VALUE[:]})
        (await subject.aget("k")).append("edited")
        subject.stats()
        assert (await subject.aget("k"))[-1] == "edited"

    asyncio.run(main())


def test_loop_runs_while_a_read_hangs(tiny: Callable[..., ThermalDict]) -> None:
    """While one disk read hangs, other tasks and other keys of the dict go on; many agets of the key are one read."""
    disk = FaultyFileSystem()
    subject = tiny({"slow": VALUE[:]}, file_system=disk)
    assert_all_cold(subject)
    subject["hot"] = held = [1]
    go_on = threading.Event()
    before = disk.calls["read_at"]
    disk.before("read_at", lambda: go_on.wait(PATIENCE_SECONDS))

    async def main() -> None:
        tasks = [asyncio.ensure_future(subject.aget("slow")) for _ in range(8)]
        while disk.calls["read_at"] == before:
            await asyncio.sleep(0.001)
        for _ in range(10):
            await asyncio.sleep(0)
            assert await subject.aget("hot") is held
        assert not any(task.done() for task in tasks)
        go_on.set()
        values = await asyncio.gather(*tasks)
        assert values[0] == VALUE
        assert all(value is values[0] for value in values)

    asyncio.run(main())
    assert disk.calls["read_at"] == before + 1
    subject.check()


def test_key_that_goes_during_aget_gives_the_default(tiny: Callable[..., ThermalDict]) -> None:
    """A key that is deleted while aget reads it gives its value or the default, never KeyError."""
    disk = FaultyFileSystem()
    subject = tiny({"k": VALUE[:]}, file_system=disk)
    assert_all_cold(subject)

    def delete_once() -> None:
        disk.heal()
        del subject["k"]

    disk.before("read_at", delete_once)

    async def main() -> Any:
        return await subject.aget("k", "default")

    assert asyncio.run(main()) in (VALUE, "default")
    assert "k" not in subject
    subject.check()


@pytest.mark.parametrize("wanted", ["aget", "prefetch"])
def test_cancelled_read(tiny: Callable[..., ThermalDict], wanted: str) -> None:
    """A task that is cancelled while it waits for the disk ends at once, and the dict is as before."""
    disk = FaultyFileSystem()
    subject = tiny({"k": VALUE[:]}, file_system=disk)
    assert_all_cold(subject)
    subject.memory_limit = 100_000
    go_on = threading.Event()
    before = disk.calls["read_at"]
    disk.before("read_at", lambda: go_on.wait(PATIENCE_SECONDS))

    async def work() -> Any:
        return await (subject.aget("k") if wanted == "aget" else subject.prefetch(["k"]))

    async def main() -> None:
        task = asyncio.ensure_future(work())
        while disk.calls["read_at"] == before:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(main())
    assert subject["k"] == VALUE
    subject.check()


def test_prefetch_awaited_and_not(tiny: Callable[..., ThermalDict]) -> None:
    """prefetch moves cold values into RAM: at once without a loop, in a thread with one, and skips absent keys."""
    subject = tiny((key, VALUE[:]) for key in range(6))
    assert_all_cold(subject)
    subject.memory_limit = 100_000
    assert subject.prefetch([0, "absent", []]).moved == 1

    async def main() -> None:
        begun = subject.prefetch([1, 2, 0])
        assert repr(begun) == "Prefetch(running)"
        assert await begun == 2
        assert begun.moved == 2
        assert [subject.where(key) for key in range(4)] == [Residency.WARM] * 3 + [Residency.COLD]
        assert await asyncio.gather(*(subject.aget(key) for key in range(6))) == [VALUE] * 6

    asyncio.run(main())
    subject.check()
