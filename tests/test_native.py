"""The tests of the C code that needs no Python: compiled with the sanitizers, and run one by one."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tests/native/test_policy.c"
CORE = ROOT / "cython_ext/core"
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
NAMES = re.findall(r"TEST\((\w+)\),", SOURCE.read_text())
# `make sanitize` preloads the sanitizers into Python; the compiler and the program below have no use for that
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "ASAN_OPTIONS")}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled test program."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    built = tmp_path_factory.mktemp("native") / "test_policy"
    sources = [str(SOURCE), str(CORE / "policy.c")]
    command = [compiler, *STRICT, *SANITIZED, f"-I{CORE}", *sources, "-o", str(built)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    return built


def run(program: Path, argument: str) -> subprocess.CompletedProcess[str]:
    """One run of the program."""
    return subprocess.run([program, argument], capture_output=True, text=True, env=ENVIRONMENT, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_policy(program: Path, name: str) -> None:
    """What the name says holds, and neither sanitizer reports anything."""
    done = run(program, name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_native_test_is_forgotten(program: Path) -> None:
    """The names found in the source are those that the program has, and it refuses any other."""
    assert run(program, "--list").stdout.split() == NAMES
    assert run(program, "no such test").returncode == 2
