"""A million values that can be made again: under 150 bytes each in RAM, nothing on disk, every one readable."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import regrow

ROOT = Path(__file__).resolve().parent.parent
BYTES_EACH_MAX = 150


def measured(name: str, entries: int) -> dict[str, Any]:
    """What one store of the benchmark costs with int keys, in a process of its own."""
    command = [sys.executable, str(ROOT / "benchmarks" / "regrow.py"), "--lap", "--keys", "int"]
    command += ["--only", name, "--entries", str(entries)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.long
def test_a_million_regenerable_values() -> None:
    """Resident memory grows by less than 150 bytes for each, keys and table included; the disk is not touched."""
    found = measured("one recipe", 1_000_000)
    assert found["resident_bytes_each"] < BYTES_EACH_MAX
    assert found["ledger_bytes_each"] < BYTES_EACH_MAX
    assert found["disk_bytes_each"] == found["disk_bytes_each_at_the_end"] == found["wrong"] == 0
    assert found["regrown"] > 990_000


def test_ten_thousand_regenerable_values() -> None:
    """The same at a size where what the process needs anyway still shows; other stores of the table keep the values."""
    found = measured("one recipe", 10_000)
    assert found["ledger_bytes_each"] < BYTES_EACH_MAX
    assert found["resident_bytes_each"] < 2 * BYTES_EACH_MAX
    assert found["disk_bytes_each_at_the_end"] == found["wrong"] == 0
    assert found["regrown"] > 8_000


@pytest.mark.parametrize("name", regrow.STORES)
@pytest.mark.parametrize("kind", regrow.KEYS)
def test_every_store_of_the_table_gives_every_value(name: str, kind: str) -> None:
    """No store that the table compares returns a wrong value."""
    found = regrow.lap(name, kind, 1_000)
    assert found["wrong"] == 0
    assert found["entries"] >= 100
