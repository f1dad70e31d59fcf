"""The shipped table of zeros is right, and the script that makes it does so again and refuses errors."""

import hashlib
import importlib
import importlib.resources
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import mpmath
import numpy
import pytest

from spectral_alloc.spectrum import zeros

TOOL = Path(__file__).parent.parent / "tools" / "make_zeta_zeros.py"


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """The script that makes the table; its worker processes import it by name."""
    sys.path.insert(0, str(TOOL.parent))
    try:
        yield importlib.import_module(TOOL.stem)
    finally:
        sys.path.remove(str(TOOL.parent))


# The table


def test_the_table_is_the_reference(tool: ModuleType) -> None:
    """The shipped file has the sha256 of the independently computed table."""
    data = importlib.resources.files("spectral_alloc").joinpath("data", "zeta_zeros_10000.f64").read_bytes()
    assert hashlib.sha256(data).hexdigest() == tool.DEFAULT_SHA256
    assert numpy.frombuffer(data, "<f8").tolist() == zeros().tolist()


@pytest.mark.parametrize("n", [1, 2, 69, 100, 1000])
def test_zeros_equal_mpmath(n: int) -> None:
    """gamma_n is the float nearest to mpmath.zetazero(n)."""
    with mpmath.workprec(80):
        assert zeros()[n - 1] == float(mpmath.zetazero(n).imag)


@pytest.mark.parametrize("n", [1, 127, 5000, 6709, 6710, 10_000])
def test_zeros_are_correctly_rounded(n: int, tool: ModuleType) -> None:
    """Z changes sign between the rounding boundaries of gamma_n, also in the closest pair, 6709 and 6710."""
    gamma = float(zeros()[n - 1])
    with mpmath.workprec(100):
        low, high = (mpmath.siegelz(tool.half_way(gamma, direction)) for direction in (-math.inf, math.inf))
    assert low * high < 0


@pytest.mark.parametrize("n", [1, 100, 6709, 9999])
def test_no_zero_is_missing(n: int) -> None:
    """Just above gamma_n mpmath counts n zeros."""
    assert mpmath.nzeros((zeros()[n - 1] + zeros()[n]) / 2) == n


# The script


def test_the_script_makes_the_table(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script computes the same bytes, taking finished chunks of an earlier run, no half-written ones."""
    monkeypatch.setattr(tool, "CHUNK_COUNT", 10)
    work, output = tmp_path / "work", tmp_path / "table.f64"
    arguments = ["--count", "25", "--workers", "2", "--work-directory", str(work), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
    work.mkdir()
    first, second, _ = tool.plan_chunks(25, work)
    assert tool.make_chunk(first) == 10
    second.path.with_suffix(".partial").write_bytes(b"killed while writing")
    stamp = first.path.stat().st_mtime_ns
    assert tool.main() == 0
    assert "3 chunks, 1 already there" in capsys.readouterr().out
    assert first.path.stat().st_mtime_ns == stamp
    assert output.read_bytes() == zeros(25).astype("<f8").tobytes()


def test_the_script_notices_a_missed_zero(tool: ModuleType, tmp_path: Path) -> None:
    """A chunk that lacks a zero is not certified and not written."""
    task = tool.plan_chunks(9, tmp_path)[0]
    task.starts.pop(4)
    with pytest.raises(ArithmeticError, match=r"after zero 8 at .* mpmath counts 9"):
        tool.make_chunk(task)
    assert list(tmp_path.iterdir()) == []


def test_the_script_refuses_a_damaged_chunk(tool: ModuleType, tmp_path: Path) -> None:
    """A chunk file of the wrong length stops the joining, and nothing is written."""
    task = tool.plan_chunks(3, tmp_path)[0]
    tool.write_table(task.path, [14.0])
    with pytest.raises(ArithmeticError, match="holds 1 zeros, not 3"):
        tool.join_chunks([task], tmp_path / "table.f64")
    assert not (tmp_path / "table.f64").exists()
