"""Watching the tiers: one entry is used, most are not, and each goes where its use says."""

from collections import Counter

from spectral_alloc import ThermalDict


def main() -> None:
    moves: Counter[str] = Counter()
    with ThermalDict.open(memory_limit="2 MB") as d:
        stop = d.on_move(lambda move: moves.update([f"{move.source.name} -> {move.target.name} ({move.cause})"]))
        for number in range(3_000):
            d[number] = {"number": number, "text": f"record {number} " * 40}
            for _ in range(3):
                d[0]["number"] += 1  # the one entry that everybody uses
        print("after writing 3,000 records of about 1 KB under a limit of 2 MB:")
        for key in (0, 1500, 2999):
            print(f"  key {key:>4}: {d.temperature(key):>4} by use, lives {d.where(key).name}")
        for number in range(100):
            d[number]
        d.prefetch(range(200, 400))
        print("after reading 100 of them and prefetching 200:")
        print(d.stats())
        print("bands in use (zero of the zeta function: entries):", d.stats().bands)
        for move, count in sorted(moves.items()):
            print(f"  {count:>6} x {move}")
        stop()
        d.check()


if __name__ == "__main__":
    main()
