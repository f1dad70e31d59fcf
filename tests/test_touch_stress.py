"""Arrays on touch for longer: a state machine, and threads with forks; in processes of their own, with a time limit."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_touch import HERE, WAYS, environment, needs

MACHINE, SOAK = HERE / "touch_machine.py", HERE / "touch_soak.py"
SPARE_SECONDS = 420


def run(script: Path, way: str, seconds: float, *arguments: str) -> str:
    """What a script prints; it fails if it fails, and if it takes far longer than it should."""
    needs(way)
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore", str(script), *arguments]
    done = subprocess.run(
        command, env=environment(way), capture_output=True, text=True, timeout=seconds + SPARE_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_any_sequence_of_operations(way: str, long_mode: bool) -> None:
    """Whatever is read, written, evicted, flushed, forked or limited: arrays, space and plain numpy models agree."""
    examples = "400" if long_mode else "8"
    assert "examples by" in run(MACHINE, way, 600 if long_mode else 60, "--examples", examples)


@pytest.mark.parametrize("way", WAYS[:3])
def test_threads_forks_and_evictions(way: str, long_mode: bool) -> None:
    """No deadlock, no lost edit and no wrong page while threads write, read, flush and evict, and children do."""
    seconds = 600 if long_mode else 2
    assert '"forks"' in run(SOAK, way, seconds, "--seconds", str(seconds))


def test_the_benchmark_runs(tmp_path: Path) -> None:
    """All tables are printed at a size where figures say nothing, and the ways agree on what they read."""
    needs("")
    arguments = ("--scale", "0.001", "--repeats", "1", "--directory", str(tmp_path))
    printed = run(HERE.parent / "benchmarks/touch.py", "", 60, *arguments)
    for name in ("open 1 TiB", "disk_touch", "disk_memmap", "memory_touch", "memory_memmap"):
        assert name in printed
    assert "no result" not in printed
    assert list(tmp_path.iterdir()) == []
