"""What SpectralMemory costs and gives back: call times, churn beside four mallocs, throughput, larger than memory.

Method: times are medians of interleaved repeats, ratios from one run. Churn: 192 MiB live in seven phases (A fill 64
to 256 bytes, B free a random 90 %, C refill 257 to 1024 and free 90 %, D refill 1025 to 4096, E keep 25 %, F replace
3 million mixed, G keep 1000), each allocator in a process of its own; RSS above that of the idle process, over live
bytes. Throughput: random replacement of 4096 blocks, sizes Pareto 16 B to 64 KiB, from C. Larger than memory: Zipf
accesses to arrays of 64 KB, four times the limit, each store in a fresh process inside the same memory group (the limit
and CAGE_ROOM_BYTES for the interpreter; the page cache counts), on disk. Limits: one machine, one thread; background
decay of the mallocs is not waited for.

    python benchmarks/memory.py [times] [churn] [throughput] [larger]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from measure import interleaved, machine, median_and_spread, save
from memory_cage import children_environment, memory_cage, python

from spectral_alloc import SpectralMemory
from spectral_alloc._heap import CLASS_COUNT
from spectral_alloc.limits import resident_bytes
from spectral_alloc.memory_tiers import STEP_BYTES

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
LIBRARIES = {
    "glibc": "",
    "jemalloc": "libjemalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "mimalloc": "libmimalloc.so.2",
}
LIVE_BYTES = 192 * MIB
SLOTS = 1_500_000
CALLS, REPEATS = 20_000, 31
PHASES = "ABCDEFG"
SLOTS_BUSY, TURNS = 4096, 2_000_000
LIMIT_BYTES, ARRAY_BYTES, ACCESSES, ACCESSES_FIRST = 128 * MIB, 64_000, 20_000, 4_000
ARRAYS = 4 * LIMIT_BYTES // ARRAY_BYTES
CAGE_ROOM_BYTES = 96 * MIB


def build_work() -> None:
    """Compile churn_work.pyx beside itself, in the build folder."""
    target = HERE.parent / "build" / "benchmarks"
    target.mkdir(parents=True, exist_ok=True)
    script = (
        "from Cython.Build import cythonize\nfrom setuptools import Extension, setup\n"
        f"made = Extension('churn_work', [{str(HERE / 'churn_work.pyx')!r}], extra_compile_args=['-O2'])\n"
        f"setup(ext_modules=cythonize([made], include_path=[{str(HERE.parent)!r}], language_level=3, build_dir='.'))\n"
    )
    (target / "setup.py").write_text(script)
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", "."]
    subprocess.run(command, cwd=target, check=True, capture_output=True)
    sys.path.insert(0, str(target))


# call times -----------------------------------------------------------------------------------------------------------


def times() -> list[dict[str, object]]:
    """Each call beside what a Python user would do instead, with the bar that it must meet."""
    mem = SpectralMemory()
    address = mem.malloc(1024)
    plain, held = {address: 1}, bytearray(1024)
    pairs: list[tuple[str, float, Callable[[], object], Callable[[], object]]] = [
        ("malloc(1024) + free : bytearray(1024)", 2.5, lambda: mem.free(mem.malloc(1024)), lambda: bytearray(1024)),
        ("access : dict.get", 2.0, lambda: mem.access(address), lambda: plain.get(address)),
        ("view + release : memoryview(bytearray)", 3.0, lambda: mem.view(address), lambda: memoryview(held)),
    ]
    rows: list[dict[str, object]] = []
    for name, bar, ours, theirs in pairs:
        sides = {"ours": looped(ours), "theirs": looped(theirs), "loop": looped(lambda: None)}
        seconds = interleaved(sides, REPEATS)
        ns = {side: median_and_spread(taken)[0] / CALLS * 1e9 for side, taken in seconds.items()}
        ratio = (ns["ours"] - ns["loop"]) / (ns["theirs"] - ns["loop"])
        mine, other = ns["ours"] - ns["loop"], ns["theirs"] - ns["loop"]
        rows.append({"pair": name, "ours_ns": mine, "theirs_ns": other, "ratio": ratio, "bar": bar})
        print(f"{name:44}{mine:8.0f} ns{other:8.0f} ns{ratio:7.2f} (bar {bar})")
    return rows


def looped(call: Callable[[], object]) -> Callable[[], object]:
    """A case that calls CALLS times."""

    def case() -> None:
        for _ in range(CALLS):
            call()

    return case


# churn ----------------------------------------------------------------------------------------------------------------


def churn_child(subject: str) -> None:
    """The seven phases in this process; prints a row of JSON."""
    from churn_work import Work

    memory = SpectralMemory(memory_limit="8 GB") if subject == "SpectralMemory" else None
    work = Work(SLOTS, memory)
    np.percentile([0.0], 50)  # what it imports is not the heap's
    base = resident_bytes()
    result: dict[str, object] = {"subject": subject}
    steps: dict[str, Callable[[], object]] = {
        "A": lambda: work.fill(LIVE_BYTES, 64, 256),
        "B": lambda: work.thin(0.9),
        "C": lambda: (work.fill(LIVE_BYTES, 257, 1024), work.thin(0.9)),
        "D": lambda: work.fill(LIVE_BYTES, 1025, 4096),
        "E": lambda: work.thin(0.75),
        "F": lambda: work.replace(3_000_000, 64, 4096),
        "G": lambda: work.keep(1000),
    }
    for phase, step in steps.items():
        step()
        row: dict[str, float] = {"rss": resident_bytes() - base, "live": work.live_bytes}
        if memory is not None:
            start = time.perf_counter()
            row["moved"], clock, own = timed_steps(memory)
            row["seconds"] = time.perf_counter() - start
            row["rss_compact"] = resident_bytes() - base
            row["steps"] = [*np.percentile(clock, [50, 99, 99.9, 100]), max(own)]
            memory.check()
        work.check()
        result[phase] = row
    print(json.dumps(result))


def timed_steps(memory: SpectralMemory) -> "tuple[int, array[float], array[float]]":
    """A compaction step by step: bytes moved, seconds of each step by the clock, and by the thread's own time.

    A step that the system stops in the middle takes long by the clock; its own time says what it took the processor.
    """
    moved, clock, own = 0, array("d"), array("d")
    for number in range(CLASS_COUNT):
        position = 0
        while True:
            start, start_own = time.perf_counter(), time.thread_time()
            bytes_moved, position = memory._compact_step(number, STEP_BYTES, position)
            clock.append(time.perf_counter() - start)
            own.append(time.thread_time() - start_own)
            moved += bytes_moved
            if position == 0:
                break
    return moved, clock, own


def churn() -> list[dict[str, object]]:
    """One row of RSS over live bytes for each allocator."""
    rows = [child("churn", name) for name in (*LIBRARIES, "SpectralMemory")]
    print(f"\n{'RSS / live bytes':24}" + "".join(f"{phase:>8}" for phase in PHASES))
    for row in [row for row in rows if row]:
        kinds = ["rss", "rss_compact"] if "rss_compact" in row["A"] else ["rss"]
        for kind in kinds:
            label = row["subject"] + (", compacted" if kind == "rss_compact" else "")
            print(f"{label:24}" + "".join(f"{row[p][kind] / max(1, row[p]['live']):8.2f}" for p in PHASES))
        if len(kinds) > 1:
            print("  MB moved:             " + "".join(f"{row[p]['moved'] / 1e6:8.1f}" for p in PHASES))
            print("  ms:                   " + "".join(f"{row[p]['seconds'] * 1e3:8.1f}" for p in PHASES))
            for at, name in enumerate(("median", "99 %", "99.9 %", "longest", "longest CPU")):
                print(f"  step ms, {name:13}" + "".join(f"{row[p]['steps'][at] * 1e3:8.2f}" for p in PHASES))
    return rows


def child(part: str, subject: str) -> dict[str, object]:
    """Run one subject in a process of its own, with its malloc preloaded; {} if the library is not installed."""
    library = LIBRARIES.get(subject, "")
    # The loader only complains of what it cannot preload, and goes on without it.
    if library and subprocess.run(["true"], env={"LD_PRELOAD": library}, capture_output=True).stderr:
        print(f"({subject} is not installed)")
        return {}
    paths = [str(HERE.parent), str(HERE), str(HERE.parent / "build" / "benchmarks")]
    paths += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    settings = os.environ | {"LD_PRELOAD": library, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, __file__, "child", part, subject]
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"({subject} failed: {done.stderr.strip().splitlines()[-1:]})")
        return {}
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


# throughput -----------------------------------------------------------------------------------------------------------


def throughput_child(subject: str) -> None:
    """Nanoseconds for one free and malloc, the best of five."""
    from churn_work import Work

    memory = SpectralMemory(memory_limit="8 GB") if subject == "SpectralMemory" else None
    work = Work(SLOTS_BUSY, memory)
    work.throughput(TURNS // 4, SLOTS_BUSY)
    print(json.dumps({"subject": subject, "ns": min(work.throughput(TURNS // 4, SLOTS_BUSY) for _ in range(5))}))


def throughput() -> list[dict[str, object]]:
    """Random replacement from C, for each allocator."""
    rows = [row for name in (*LIBRARIES, "SpectralMemory") if (row := child("throughput", name))]
    print()
    for row in rows:
        print(f"free + malloc + touch, Pareto 16 B to 64 KiB: {row['subject']:16}{row['ns']:8.1f} ns")
    return rows


# larger than memory ---------------------------------------------------------------------------------------------------


def zipf_accesses() -> "np.ndarray":
    """Which array each access is to: Zipf 1.0 over shuffled arrays, the same for all stores."""
    rng = np.random.default_rng(7)
    weights = 1 / np.arange(1, ARRAYS + 1)
    return rng.permutation(ARRAYS)[rng.choice(ARRAYS, ACCESSES_FIRST + ACCESSES, p=weights / weights.sum())]


def walks() -> "Iterator[np.ndarray]":
    """The arrays, one at a time: random walks."""
    for number in range(ARRAYS):
        yield np.cumsum(np.random.default_rng(number).integers(-50, 50, ARRAY_BYTES // 4)).astype(np.int32)


def larger_child(subject: str) -> None:
    """Seconds for ACCESSES sums and in-place edits over four times LIMIT_BYTES in arrays of 64 KB."""
    accesses = zipf_accesses().tolist()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        use = USES[subject](folder)
        filled = time.perf_counter()
        for number in accesses[:ACCESSES_FIRST]:
            use(number)
        begun = time.perf_counter()
        total = sum(use(number) for number in accesses[ACCESSES_FIRST:])
        us = (time.perf_counter() - begun) / ACCESSES * 1e6
        print(json.dumps({"subject": subject, "us": us, "fill_seconds": filled - start, "sum": total}))


def edited(array: "np.ndarray") -> int:
    """What each access does: a sum, and one item changed."""
    total = int(array[::64].sum())
    array[0] += 1
    return total


def use_spectral(folder: str) -> Callable[[int], int]:
    """Blocks of a SpectralMemory."""
    mem = SpectralMemory(memory_limit=LIMIT_BYTES, spill_dir=folder)
    blocks = []
    for walk in walks():
        blocks.append(mem.malloc(walk.nbytes))
        mem.write(blocks[-1], walk)
    return lambda number: edited(mem.array(blocks[number], "i4"))


def use_memmap(folder: str) -> Callable[[int], int]:
    """One file, mapped; the system drops pages as the group fills."""
    mapped = np.memmap(Path(folder) / "walks", np.int32, "w+", shape=(ARRAYS, ARRAY_BYTES // 4))
    for number, walk in enumerate(walks()):
        mapped[number] = walk
    return lambda number: edited(mapped[number])


def use_lmdb(folder: str) -> Callable[[int], int]:
    """A key for each array, written without sync."""
    import lmdb

    environment = lmdb.open(folder, map_size=1 << 32, sync=False, metasync=False, writemap=True)
    with environment.begin(write=True) as transaction:
        for number, walk in enumerate(walks()):
            transaction.put(number.to_bytes(4), walk.tobytes())

    def use(number: int) -> int:
        with environment.begin(write=True) as transaction:
            array = np.frombuffer(transaction.get(number.to_bytes(4)), np.int32).copy()
            total = edited(array)
            transaction.put(number.to_bytes(4), array.tobytes())
        return total

    return use


def use_blosc2(folder: str) -> Callable[[int], int]:
    """A dict of arrays that are compressed in memory."""
    import blosc2

    packed = {number: blosc2.pack_array2(walk) for number, walk in enumerate(walks())}

    def use(number: int) -> int:
        array = blosc2.unpack_array2(packed[number])
        total = edited(array)
        packed[number] = blosc2.pack_array2(array)
        return total

    return use


USES = {
    "SpectralMemory": use_spectral,
    "numpy.memmap": use_memmap,
    "lmdb": use_lmdb,
    "blosc2 in dict": use_blosc2,
}


def larger() -> list[dict[str, object]]:
    """Each store, the same accesses, in the same cage; what dies in it once more without."""
    rows: list[dict[str, object]] = []
    print(f"\nZipf accesses to {ARRAYS} arrays of 64 KB, {LIMIT_BYTES / MIB:.0f} MiB for them")
    for name in USES:
        row = caged(name)
        rows.append(row)
        if "failure" in row:
            print(f"  {name:16}{row['failure']} ({row['cage']})")
            row = child("larger", name) | {"cage": "no cap"}
            if "us" not in row:  # it is not installed
                continue
            rows.append(row)
        print(f"  {name:16}{row['us']:9.1f} us each; filled in {row['fill_seconds']:.1f} s ({row['cage']})")
    sums = {row["sum"] for row in rows if "sum" in row}
    assert len(sums) == 1, sums
    return rows


def caged(subject: str) -> dict[str, object]:
    """One store in a process of its own, in a cage."""
    with memory_cage(LIMIT_BYTES + CAGE_ROOM_BYTES) as cage:
        done = cage.run(python(__file__, "child", "larger", subject), env=children_environment())
    row: dict[str, object] = {"subject": subject, "cage": f"{cage.mechanism}, {cage.cap_bytes / MIB:.0f} MiB"}
    if done.returncode != 0:
        reason = "killed" if done.returncode < 0 else done.stderr.strip().splitlines()[-1]
        return row | {"failure": reason}
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return row | result


PARTS = {"times": times, "churn": churn, "throughput": throughput, "larger": larger}
CHILDREN = {"churn": churn_child, "throughput": throughput_child, "larger": larger_child}


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        CHILDREN[sys.argv[2]](sys.argv[3])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all of them by default")
    chosen = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in chosen if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}, only {', '.join(PARTS)}")
    build_work()
    print(machine())
    save("memory", {part: PARTS[part]() for part in chosen})


if __name__ == "__main__":
    main()
