"""Packed pages and where they are kept: the C code that needs no Python, compiled with the sanitizers."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import lz4.block
import pytest
from test_native import CORE, ENVIRONMENT, ROOT, SANITIZED, STRICT

SOURCE = ROOT / "tests/native/test_page_store.c"
NAMES = re.findall(r"TEST\((\w+)\),", SOURCE.read_text())
PAGE_BYTES = 4096


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled test program."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    built = tmp_path_factory.mktemp("native") / "test_page_store"
    sources = [str(CORE / f"{name}.c") for name in ("page_store", "page_pack", "shuffle", "crc32c")]
    command = [compiler, *STRICT, *SANITIZED, f"-I{CORE}", str(SOURCE), *sources, "-o", str(built)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    return built


def run(program: Path, name: str, directory: Path) -> "subprocess.CompletedProcess[bytes]":
    """One run of the program."""
    return subprocess.run([program, name, directory], capture_output=True, env=ENVIRONMENT, check=False)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "blocks"])
def test_page_store(program: Path, name: str, tmp_path: Path) -> None:
    """What the name says holds, neither sanitizer reports anything, and no file is left."""
    done = run(program, name, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_packed_pages_are_lz4_blocks(program: Path, tmp_path: Path) -> None:
    """Another implementation of the LZ4 block format reads what was packed."""
    output = run(program, "blocks", tmp_path).stdout
    shortened = at = 0
    while at < len(output):
        length = int.from_bytes(output[at : at + 2], "little")
        packed = output[at + 2 : at + 2 + length]
        at += 2 + length + PAGE_BYTES
        page = output[at - PAGE_BYTES : at]
        if length == PAGE_BYTES:
            assert packed == page
            continue
        assert lz4.block.decompress(packed, uncompressed_size=PAGE_BYTES) == page
        shortened += 1
    assert shortened > 300
