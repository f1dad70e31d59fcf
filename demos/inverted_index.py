"""An inverted index larger than its memory limit: word -> file -> lines, over every Python source of this interpreter.

Builds the index twice, each time in a process of its own: in a ThermalDict that may use 48 MB, and in a plain dict.
Compares every entry of the two by a digest over the sorted items, and prints time and peak memory of both.
"""

import hashlib
import json
import re
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import MutableMapping
from pathlib import Path

from spectral_alloc import ThermalDict

MEMORY_LIMIT = "48 MB"
BLOCK_FILES = 50  # indexed apart, then merged: a frequent word is brought back once a block, not once a file
WORD = re.compile(r"[^\W\d]\w+")

Postings = dict[int, list[int]]  # file number -> numbers of the lines with the word


def source_files() -> list[Path]:
    """Every Python file of the standard library and of site-packages, each once, in a fixed order."""
    stdlib, *packages = (Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
    # The folder of the standard library may hold a site-packages that a virtual environment does not use.
    library = {path for path in stdlib.rglob("*.py") if "site-packages" not in path.parts[len(stdlib.parts) :]}
    return sorted(library | {path for folder in packages for path in folder.rglob("*.py")})


def add_words(words: dict[str, Postings], path: Path, number: int) -> None:
    """Add the lines of each word of one file."""
    for line, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        for word in WORD.findall(text):
            words.setdefault(word, {}).setdefault(number, []).append(line)


def build(index: MutableMapping[str, Postings], progress: bool) -> None:
    """Fill the index, a block of files at a time; the same lines of code whichever mapping it is."""
    files = source_files()
    for start in range(0, len(files), BLOCK_FILES):
        words: dict[str, Postings] = {}
        for number, path in enumerate(files[start : start + BLOCK_FILES], start):
            add_words(words, path, number)
        while words:
            word, postings = words.popitem()
            if word in index:
                index[word].update(postings)  # an edit in place: it must survive wherever the value goes
            else:
                index[word] = postings
        if progress:
            done = min(start + BLOCK_FILES, len(files))
            print(f"\r  {done:>6} of {len(files)} files, {len(index):>8,} words", end="", file=sys.stderr, flush=True)
    if progress:
        print(file=sys.stderr)


def digest(index: MutableMapping[str, Postings]) -> str:
    """SHA-256 over all items, sorted by word."""
    state = hashlib.sha256()
    for word in sorted(index):
        state.update(word.encode() + b"\0" + repr(index[word]).encode() + b"\n")
    return state.hexdigest()


def run(kind: str) -> None:
    """One process: build, digest, report one line of JSON on standard output."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    index = ThermalDict.open(memory_limit=MEMORY_LIMIT) if kind == "thermal" else {}
    start = time.perf_counter()
    build(index, progress=True)
    built_seconds = time.perf_counter() - start
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = {
        "words": len(index),
        "seconds": built_seconds,
        "digest": digest(index),
        "digest_seconds": time.perf_counter() - start - built_seconds,
        "before_mb": before_kib * 1024 / 1e6,
        "peak_mb": peak_kib * 1024 / 1e6,
    }
    if isinstance(index, ThermalDict):
        stats = index.stats()
        report |= {"stats": str(stats), "used_mb": stats.used_bytes / 1e6, "disk_mb": stats.disk_live_bytes / 1e6}
        index.check()
        index.close()
    print(json.dumps(report))


def child(kind: str) -> dict:
    """Run one kind in a process of its own and return its report."""
    done = subprocess.run([sys.executable, __file__, kind], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    if len(sys.argv) > 1:
        run(sys.argv[1])
        return 0
    print(f"Indexing every word of {len(source_files()):,} Python files.")
    print(f"In a ThermalDict with memory_limit={MEMORY_LIMIT!r}:", file=sys.stderr)
    thermal = child("thermal")
    print("In a plain dict:", file=sys.stderr)
    plain = child("plain")
    print(thermal["stats"])
    print(f"{'':22}{'ThermalDict':>14}{'dict':>14}")
    for title, name, unit in [
        ("words", "words", ","),
        ("build, seconds", "seconds", ".1f"),
        ("read all, seconds", "digest_seconds", ".1f"),
        ("peak memory, MB", "peak_mb", ".0f"),
        ("  before the index", "before_mb", ".0f"),
    ]:
        print(f"{title:22}{thermal[name]:>14{unit}}{plain[name]:>14{unit}}")
    same = thermal["digest"] == plain["digest"]
    print(f"Every entry equal: {same} (sha256 {plain['digest'][:16]}...)")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
