"""What does a value cost on its way out of RAM and back? Each step of the slow paths for one kind of record.

Method: 2,000 records as a web service keeps them (id, version, name, e-mail, 16 floats, 6 tags, 200 characters of text,
a bool); every step runs over 300 of them, in turns with all other steps; the least of 25 repeats counts, since a shared
machine only ever adds time. Then whole passages, and a service with 60,000 records under a limit, of which only the
processor time of the calls counts (and the clock's, 0.5 us). Limits: steps have their data in cache; passages have not.
"""

import argparse
import marshal
import pickle
import random
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from measure import machine, save

from spectral_alloc import ThermalDict
from spectral_alloc._closure import walk_cost
from spectral_alloc._frame import pack, parse
from spectral_alloc._graph_stream import read_graph, write_graph
from spectral_alloc._shadows import digest_bytes
from spectral_alloc.frame import FrameCodec

RECORDS = 2_000
MEASURED = 300
REPEATS = 25
SERVED_KEYS = 60_000
SERVED_OPERATIONS = 100_000
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau".split()


def record(number: int, version: int = 0) -> dict[str, Any]:
    """One record: about 2 KB live, 0.5 KB as a stream."""
    draw = random.Random(number * 1_000 + version)
    name = f"{draw.choice(WORDS)} {draw.choice(WORDS)}"
    return {
        "id": number,
        "version": version,
        "name": name,
        "e-mail": f"{name.replace(' ', '.')}{number}@example.org",
        "scores": [draw.random() for _ in range(16)],
        "tags": [f"{draw.choice(WORDS)}{draw.randrange(100)}" for _ in range(6)],
        "text": " ".join(draw.choice(WORDS) for _ in range(60))[:200],
        "active": draw.random() < 0.5,
    }


def serialisers(values: list[dict[str, Any]]) -> Iterable[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]]:
    """(name, dumps, loads) of ours and of those that are installed."""
    yield "graph stream", write_graph, read_graph
    yield "pickle 5", lambda value: pickle.dumps(value, 5), pickle.loads
    yield "marshal", marshal.dumps, marshal.loads
    if find_spec("msgspec") is not None:
        msgspec = import_module("msgspec")
        yield "msgspec", msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


def least_microseconds(cases: dict[str, tuple[Callable[[Any], Any], list[Any]]]) -> dict[str, float]:
    """Microseconds a call of each case, measured in turns."""
    least = dict.fromkeys(cases, float("inf"))
    for _ in range(REPEATS):
        for name, (call, items) in cases.items():
            start = time.perf_counter()
            for item in items:
                call(item)
            least[name] = min(least[name], (time.perf_counter() - start) / len(items) * 1e6)
    return least


def steps() -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of every step, and bytes of every form."""
    values = [record(number) for number in range(RECORDS)]
    streams = [write_graph(value) for value in values]
    codec = FrameCodec()
    for stream in streams:
        codec.encode([stream], [1])
    codec.train()
    compressor = codec._dictionaries.current.compressor()
    decompressor = codec._decompressor(codec._dictionaries.current.id)
    values, streams = values[:MEASURED], streams[:MEASURED]
    frames = [codec.encode([stream], [1]) for stream in streams]
    blocks = [parse(frame)[0] for frame in frames]
    payloads = [block[4] for block in blocks]
    cases: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {}
    sizes = {}
    for name, dumps, loads in serialisers(values):
        dumped = [dumps(value) for value in values]
        sizes[name] = sum(map(len, dumped)) / MEASURED
        cases[f"dumps  {name}"] = dumps, values
        cases[f"loads  {name}"] = loads, dumped
    cases["digest of a stream"] = digest_bytes, streams
    cases["zstd compress, trained"] = compressor.compress, streams

    def decompress(payload: bytes) -> bytes:
        return decompressor.decompress(payload, 0, False, False)

    cases["zstd decompress, trained"] = decompress, payloads
    tiny = compressor.compress(b"ab")
    cases["zstd compress, two bytes"] = compressor.compress, [b"ab"] * MEASURED
    cases["zstd decompress, two bytes"] = decompress, [tiny] * MEASURED
    cases["zstd decompress, by keyword"] = (
        lambda payload: decompressor.decompress(payload, allow_extra_data=False),
        payloads,
    )
    cases["pack a frame"] = lambda block: pack([block]), blocks
    cases["parse a frame"] = parse, frames
    cases["encode, general way"] = lambda stream: codec.encode([stream], [1]), streams
    cases["encode, express way"] = codec.express.encode, streams
    cases["decode and loads, general way"] = lambda frame: read_graph(codec.decode(frame)[0]), frames
    cases["decode and loads, express way"] = codec.express.value, frames
    found = least_microseconds(cases)
    found["closedness walk"] = min(walk_cost([pickle.loads(pickle.dumps(v))], 2_000) for v in values[:10]) * 1e6
    sizes["frame"] = sum(map(len, frames)) / MEASURED
    return found, sizes


def cycles() -> dict[str, float]:
    """Microseconds of processor time of whole passages: reads of cold values that push others out."""
    keys = range(30_000)
    subject = ThermalDict.open(memory_limit=12_000_000)
    for key in keys:
        subject[key] = record(key)
    found = {}
    draw = random.Random(1)
    for name, share in (("read, nothing changed", 0.0), ("read, every second one edited", 0.5)):
        least = float("inf")
        for _ in range(REPEATS):
            some = draw.sample(keys, 1_000)
            edited = [draw.random() < share for _ in some]
            start = time.thread_time()
            for key, edit in zip(some, edited, strict=True):
                value = subject[key]
                if edit:
                    value["version"] += 1
            least = min(least, (time.thread_time() - start) / len(some) * 1e6)
        found[f"{name}; another value goes"] = least
    subject.close()
    return found


def served(write_share: float) -> dict[str, float]:
    """A service under pressure, Zipf 0.99 over shuffled keys: processor time of the thread, and latencies."""
    subject: ThermalDict[str, Any] = ThermalDict.open(memory_limit=16_000_000)
    for number in range(SERVED_KEYS):
        subject[f"user:{number}"] = record(number)
    draw = np.random.default_rng(3)
    weights = 1 / np.arange(1, SERVED_KEYS + 1) ** 0.99
    ranks = np.searchsorted(np.cumsum(weights / weights.sum()), draw.random(SERVED_OPERATIONS))
    chosen = draw.permutation(SERVED_KEYS)[ranks.clip(0, SERVED_KEYS - 1)].tolist()
    writes = (draw.random(SERVED_OPERATIONS) < write_share).tolist()
    latencies = np.empty(SERVED_OPERATIONS)
    thread_seconds = 0.0
    for index, (number, is_write) in enumerate(zip(chosen, writes, strict=True)):
        key, value = f"user:{number}", record(number, 1) if is_write else None
        began, start = time.thread_time(), time.perf_counter()
        if is_write:
            subject[key] = value
        else:
            subject[key]
        latencies[index] = time.perf_counter() - start
        thread_seconds += time.thread_time() - began
        del value
    stats = subject.stats()
    subject.close()
    name = f"served, {write_share:.0%} writes: "
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e6
    slow_share = (stats.hits_warm + stats.hits_cold) / SERVED_OPERATIONS
    print(f"{name}{slow_share:.0%} slow, {stats.promotions:,} promotions, {stats.demotions:,} demotions, all told")
    return {f"{name}thread time": thread_seconds / SERVED_OPERATIONS * 1e6, f"{name}p50": p50, f"{name}p99": p99}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    print(machine())
    found, sizes = steps()
    found |= cycles() | served(0.1) | served(0.0)
    for name, microseconds in found.items():
        print(f"{name:50}{microseconds:8.2f} us")
    for name, size in sizes.items():
        print(f"{name:50}{size:8.0f} B")
    save("slow_path", {"microseconds": found, "bytes": sizes})


if __name__ == "__main__":
    main()
