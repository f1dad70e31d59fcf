"""The codec of frames, formulas first, beside zstd-3, zstd-19, blosc2 and pcodec; every ratio is of one run.

    python benchmarks/codec.py                     # all; peers that are not installed say so
    python benchmarks/codec.py --repeats 3 --only "arange i64" --only urandom

Prints bytes of 32 kinds of 1 MiB blocks and of real data, GB/s both ways, the hit rate, and what a search in vain costs
as a share of zstd-3's time on the same block; writes all of it to benchmarks/results/codec.json.
"""

import argparse
import importlib.util
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import codec_corpus
import numpy
import zstandard
from measure import interleaved, save

from spectral_alloc import _formula, _frame
from spectral_alloc._express import FORMULA_SURE_BYTES
from spectral_alloc.frame import FrameCodec

Array = numpy.ndarray[Any, Any]

SEARCHES = 15  # of which the fastest counts: a search takes microseconds, an interruption a thousand times that
SLOW = "zstd-19"  # measured once: it takes a second a block
LARGER_MAX_BYTES = 32
SLOWER_MAX_SHARE = 0.01


@dataclass(frozen=True)
class System:
    """One way to store a block."""

    encode: Callable[[Array], bytes]
    decode: Callable[[bytes, Array], object]
    needs: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether its package is there."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


class PlainCodec(FrameCodec):
    """The codec of frames as it would be without formulas."""

    def _formula(self, data: bytes | memoryview, item_size: int) -> bytes | None:
        return None


def by_frames(codec: FrameCodec) -> System:
    """Frames of one part."""

    def encode(block: Array) -> bytes:
        return codec.encode([block], [block.itemsize])

    return System(encode, lambda stored, block: codec.decode(stored)[0])


def by_zstd(level: int) -> System:
    """zstandard's simplest call."""
    compressor, decompressor = zstandard.ZstdCompressor(level), zstandard.ZstdDecompressor()
    return System(lambda block: compressor.compress(block.data), lambda stored, block: decompressor.decompress(stored))


def by_blosc2() -> System:
    """Bit shuffle and zstd-5, what the field's tables have."""

    def encode(block: Array) -> bytes:
        import blosc2

        settings = {"codec": blosc2.Codec.ZSTD, "clevel": 5, "filter": blosc2.Filter.BITSHUFFLE}
        return bytes(blosc2.compress(block, typesize=block.itemsize, **settings))

    def decode(stored: bytes, block: Array) -> object:
        import blosc2

        return blosc2.decompress(stored)

    return System(encode, decode, "blosc2")


PCODEC_TYPES = {"i2", "u2", "i4", "u4", "f4", "i8", "u8", "f8"}


def by_pcodec() -> System:
    """Its defaults, level 8; bytes as pairs, since it has no type of one byte."""

    def numbers(block: Array) -> Array:
        if block.dtype.str[1:] in PCODEC_TYPES:
            return block.reshape(-1)
        return block.reshape(-1).view("u1")[: block.nbytes // 2 * 2].view("u2")

    def encode(block: Array) -> bytes:
        from pcodec import ChunkConfig, standalone

        return bytes(standalone.simple_compress(numbers(block), ChunkConfig()))

    def decode(stored: bytes, block: Array) -> object:
        from pcodec import standalone

        return standalone.simple_decompress(stored)

    return System(encode, decode, "pcodec")


SYSTEMS: dict[str, System] = {
    "ours": by_frames(FrameCodec()),
    "plain": by_frames(PlainCodec()),
    "zstd-3": by_zstd(3),
    SLOW: by_zstd(19),
    "blosc2": by_blosc2(),
    "pcodec": by_pcodec(),
}


def search_seconds(block: Array) -> float:
    """The time of a search for a formula, found or not."""
    work = {"search": lambda: _formula.find(block)}
    return min(interleaved(work, SEARCHES)["search"])


def measure(block: Array, repeats: int) -> dict[str, Any]:
    """Bytes and seconds of one block, and whether it is a formula."""
    block = numpy.ascontiguousarray(block)
    installed = {name: system for name, system in SYSTEMS.items() if system.is_installed}
    stored: dict[str, bytes] = {}

    def store(name: str) -> Callable[[], None]:
        return lambda: stored.update({name: installed[name].encode(block)})

    def fetch(name: str) -> Callable[[], object]:
        return lambda: installed[name].decode(stored[name], block)

    taken = interleaved({SLOW: store(SLOW)}, 1)
    taken |= interleaved({name: store(name) for name in installed if name != SLOW}, repeats)
    back_taken = interleaved({name: fetch(name) for name in installed}, repeats)
    for name in installed:
        back = memoryview(fetch(name)()).cast("B")  # type: ignore[arg-type]  # all return buffers
        assert bytes(back) == block.tobytes()[: len(back)]
        assert len(back) == block.nbytes
    found = _formula.find(block)
    blocks = _frame.parse(stored["ours"])
    return {
        "raw_bytes": block.nbytes,
        "bytes": {name: len(data) for name, data in stored.items()},
        "encode_seconds": {name: statistics.median(seconds) for name, seconds in taken.items()},
        "decode_seconds": {name: statistics.median(seconds) for name, seconds in back_taken.items()},
        "formula_bytes": None if found is None else len(found),
        "is_formula": blocks[0][0] == _frame.FORMULA,
        "search_seconds": search_seconds(block),
    }


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the blocks of one source."""
    summed: dict[str, Any] = {"blocks": len(rows), "hits": sum(row["is_formula"] for row in rows)}
    for key in ("raw_bytes", "search_seconds"):
        summed[key] = sum(row[key] for row in rows)
    for key in ("bytes", "encode_seconds", "decode_seconds"):
        summed[key] = {name: sum(row[key][name] for row in rows) for name in rows[0][key]}
    return summed


NAMES = ("ours", "zstd-3", SLOW, "blosc2", "pcodec")
RATES = " ".join(f"{name[:7]:>7}" for name in NAMES)
HEAD = " ".join([f"{'':<26} {'':>5}", *(f"{name:>9}" for name in NAMES), f" {RATES}  {RATES}  search"])
TITLE = f"{'':<32} {'bytes':>49}  {'encoding, GB/s':>39}  {'decoding, GB/s':>39}  / zstd-3"


def rates(row: dict[str, Any], key: str) -> str:
    """GB/s of raw bytes of each system."""
    shown = (f"{row['raw_bytes'] / row[key][name] / 1e9:>7.3f}" if name in row[key] else f"{'-':>7}" for name in NAMES)
    return " ".join(shown)


def print_row(name: str, row: dict[str, Any]) -> None:
    """Bytes and GB/s of all systems, and what the search costs."""
    sizes = " ".join(f"{row['bytes'].get(system) or 'absent':>9}" for system in NAMES)
    share = row["search_seconds"] / row["encode_seconds"]["zstd-3"]
    hit = f"{row['hits']}/{row['blocks']}" if "hits" in row else "hit" if row["is_formula"] else "-"
    both = f"{rates(row, 'encode_seconds')}  {rates(row, 'decode_seconds')}"
    print(f"{name:<26} {hit:>5} {sizes}  {both}  {share:>6.2%}")


def verdicts(name: str, must_win: bool, row: dict[str, Any]) -> list[str]:
    """What does not hold of what must hold."""
    wrong = []
    plain = row["bytes"]["plain"]
    if must_win and not (row["is_formula"] and row["formula_bytes"] <= FORMULA_SURE_BYTES):
        wrong.append(f"{name}: the formula takes {row['formula_bytes']} bytes, not at most {FORMULA_SURE_BYTES}")
    if row["bytes"]["ours"] > plain + LARGER_MAX_BYTES:
        wrong.append(f"{name}: {row['bytes']['ours'] - plain} bytes larger than without formulas")
    if not row["is_formula"] and row["search_seconds"] > SLOWER_MAX_SHARE * row["encode_seconds"]["zstd-3"]:
        share = row["search_seconds"] / row["encode_seconds"]["zstd-3"]
        wrong.append(f"{name}: a search in vain takes {share:.1%} of zstd-3")
    slower = row["encode_seconds"]["ours"] > (1 + SLOWER_MAX_SHARE) * row["encode_seconds"]["zstd-3"]
    if not row["is_formula"] and slower:
        times = row["encode_seconds"]["ours"] / row["encode_seconds"]["zstd-3"]
        wrong.append(f"{name}: takes {times:.2f} times as long as zstd-3")
    return wrong


def main() -> None:
    """Measure, print, and say what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--bytes", type=int, default=codec_corpus.BLOCK_BYTES)
    parser.add_argument("--only", action="append", help="name of a kind; may be given again")
    options = parser.parse_args()
    absent = [f"{name} ({system.needs})" for name, system in SYSTEMS.items() if not system.is_installed]
    print(f"blocks of {options.bytes:,} bytes; absent: {', '.join(absent) or 'nothing'}", TITLE, HEAD, sep="\n")
    rows: dict[str, Any] = {}
    wrong: list[str] = []
    kinds = codec_corpus.synthetic(options.bytes)
    for name, (must_win, make) in kinds.items():
        if options.only and name not in options.only:
            continue
        rows[name] = measure(make(), options.repeats)
        print_row(name, rows[name])
        wrong += verdicts(name, must_win, rows[name])
    hits = sum(row["is_formula"] for row in rows.values())
    sources: dict[str, Any] = {}
    for name, blocks in codec_corpus.real(options.bytes).items() if not options.only else ():
        if not blocks:
            print(f"{name:<25} absent")
            sources[name] = None
            continue
        sources[name] = total([measure(block, options.repeats) for block in blocks])
        print_row(name, sources[name])
    real_hits = sum(row["hits"] for row in sources.values() if row)
    print(f"formulas: {hits} of {len(rows)} kinds; {real_hits} blocks of real data")
    print("\n".join(["does not hold:", *wrong]) if wrong else "all that must hold holds")
    save("codec", {"kinds": rows, "real": sources, "wrong": wrong})


if __name__ == "__main__":
    main()
