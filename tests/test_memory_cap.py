"""The promise itself: under a memory cap, a dict far larger than the cap works, where a plain dict dies."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_cage import Cage, children_environment, is_in_memory, memory_cage, python

CAP_BYTES = 400_000_000
# RLIMIT_AS counts the interpreter's and the libraries' unused address space too, some 120 MB of it.
MEMORY_LIMIT_BYTES = {True: 200_000_000, False: 120_000_000}
RECORD_COUNT = 1_000_000
READ_COUNT = 100_000
SAMPLE_COUNT = 50_000
DICT_BYTES_MIN = 1_500_000_000
SCRIPT = Path(__file__).with_name("million_records.py")
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A directory for spill files that is not memory."""
    for path in (tmp_path, Path("/var/tmp")):
        if not is_in_memory(path.resolve()):
            return path
    pytest.skip("every directory for temporary files is in memory")


@pytest.fixture(params=["preferred", pytest.param("RLIMIT_AS", marks=pytest.mark.long)])
def cage(request: pytest.FixtureRequest) -> Iterator[Cage]:
    """A cap of 400 MB: a memory control group where one can be made, else (and in the long mode too) RLIMIT_AS."""
    with memory_cage(CAP_BYTES, only_address_space=request.param == "RLIMIT_AS") as made:
        yield made


def run_child(
    cage: Cage, kind: str, records: int, reads: int, spill_dir: Path
) -> subprocess.CompletedProcess[str]:
    """Run the program with one kind of dict under the cap."""
    command = python(SCRIPT, kind, records, reads, MEMORY_LIMIT_BYTES[cage.kills], spill_dir)
    return cage.run(command, env=children_environment())


def report(title: str, cage: Cage, child: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Print how a child ended, for ``pytest -s``; returns its figures, empty if it died."""
    figures = json.loads(child.stdout) if child.stdout else {}
    ending = f"figures {figures}" if figures else f"exit status {child.returncode}, {child.stderr.strip()[-60:]!r}"
    print(f"\n{title} under {cage.mechanism} {cage.cap_bytes / 1e6:.0f} MB: {ending}")
    return figures


def test_records_take_more_than_the_cap_allows(disk: Path) -> None:
    """A million of these records take over 1.5 GB in a dict, measured on a twentieth of them without a cap."""
    command = python(SCRIPT, "dict", SAMPLE_COUNT, 0, 0, disk)
    child = subprocess.run(command, env=children_environment(), capture_output=True, text=True, check=True)
    whole_bytes = json.loads(child.stdout)["growth_bytes"] * RECORD_COUNT / SAMPLE_COUNT
    print(f"\na dict of {RECORD_COUNT:,} records takes {whole_bytes / 1e9:.2f} GB")
    assert whole_bytes > DICT_BYTES_MIN


def test_a_million_records_fit_where_a_dict_dies(cage: Cage, disk: Path) -> None:
    """Under 400 MB a million records are stored and 100,000 read back equal; the same program with dict dies."""
    thermal = run_child(cage, "thermal", RECORD_COUNT, READ_COUNT, disk)
    figures = report("ThermalDict", cage, thermal)
    assert thermal.returncode == 0, thermal.stderr
    assert figures["length"] == RECORD_COUNT
    assert figures["equal"] == figures["read"] == READ_COUNT
    assert figures["limit_bytes"] == MEMORY_LIMIT_BYTES[cage.kills]
    # A million keys and their bookkeeping alone take some 120 MB.
    in_memory = figures["hot_entries"] + figures["warm_entries"]
    assert figures["used_bytes"] <= figures["limit_bytes"] or in_memory == 0
    assert figures["peak_bytes"] < CAP_BYTES
    assert figures["events"] == {}
    assert list(disk.glob("spectral_alloc-*")) == []

    plain = run_child(cage, "dict", RECORD_COUNT, READ_COUNT, disk)
    assert report("dict", cage, plain) == {}
    if cage.kills:
        assert plain.returncode in KILLED, plain
    else:
        assert plain.returncode == 1, plain
        assert "MemoryError" in plain.stderr, plain
