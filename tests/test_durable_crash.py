"""Power may go at any operation of the disk: what is found then is what the dict was at one moment since the last
promise."""

import random
from typing import Any

import pytest
from durable_model import OPERATIONS, Bench, Witness
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

MODES = ("none", "interval", "always")
SCRIPT = st.lists(OPERATIONS, min_size=300, max_size=300)


def check_every_crash(script: list[tuple[Any, ...]], seed: int, **how: Any) -> int:
    """Run a script, and open what is left of the disk at each of its operations; returns how many those were."""
    disk = Witness(random.Random(seed))
    bench = Bench(disk, **how)
    disk.where = lambda: bench.where
    for operation in script:
        bench.run(operation)
    bench.subject.close()
    bench.promised = bench.synced = len(bench.moments) - 1
    disk.left.append((disk.survivor(disk.chance), *bench.where))
    for number, (left, *where) in enumerate(disk.left):
        found = bench.found_on(left)
        assert bench.may_be(found, *where), (number, where, found, bench.moments[where[0] : where[2] + 1])
    return len(disk.left)


@pytest.mark.parametrize("mode", MODES)
def test_a_crash_at_any_operation_loses_nothing_promised(mode: str, long_mode: bool) -> None:
    """300 random operations, the power lost at each operation of the disk: nothing promised is missing, nothing else
    is new."""

    @settings(
        max_examples=100 if long_mode else 2,
        suppress_health_check=list(HealthCheck),
        deadline=None,
        phases=[Phase.generate],
    )
    @given(script=SCRIPT, seed=st.integers(0, 1 << 32))
    def check(script: list[tuple[Any, ...]], seed: int) -> None:
        assert check_every_crash(script, seed, durability=mode) > 5

    check()


@pytest.mark.parametrize("mode", MODES)
def test_a_crash_is_as_harmless_with_a_key(mode: str) -> None:
    """The same with a MAC on every record, on a script that is always the same."""
    chance = random.Random(3)
    script: list[tuple[Any, ...]] = []
    for number in range(120):
        kind = chance.choice(["set", "set", "delete", "edit", "sync", "transaction", "time", "compact", "reopen"])
        key = f"k{chance.randrange(8)}"
        arguments: dict[str, tuple[Any, ...]] = {
            "set": (key, [number] * chance.randrange(30)),
            "delete": (key,),
            "edit": (key, number),
            "transaction": ([(key, number), ("k1", [number])],),
        }
        script.append((kind, *arguments.get(kind, ())))
    assert check_every_crash(script, 5, durability=mode, key=b"0123456789abcdef") > 50
