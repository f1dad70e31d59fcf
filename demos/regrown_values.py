"""Tiles of a map that can be drawn again: 40,000 of them, 50 MB, in 10 MB and nothing on disk; edits are kept."""

import random
import resource
import time

from spectral_alloc import RegrowError, ThermalDict

SIDE, EDITS, READS = 200, 200, 10_000


def tile(place: tuple[int, int]) -> list[int]:
    """The heights of one tile: pure, so it need not be kept."""
    x, y = place
    return [(x * 7919 + y * 104_729 + step * step) % 9_000 for step in range(64)]


def main() -> None:
    chance = random.Random(1)
    places = [(x, y) for x in range(SIDE) for y in range(SIDE)]
    with ThermalDict.open(memory_limit="10 MB", regrow=tile, regrow_always=True) as tiles:
        start = time.perf_counter()
        for place in places:
            tiles[place] = tile(place)
        filled = time.perf_counter()
        edited = {place: chance.randrange(9_000) for place in chance.sample(places, EDITS)}
        for place, height in edited.items():
            tiles[place][0] = height  # an edit in place: from now on this tile is stored
        read = time.perf_counter()
        for place in chance.choices(places, k=READS):
            assert tiles[place][1:] == tile(place)[1:]
            assert tiles[place][0] == edited.get(place, tile(place)[0])
        print(tiles.stats())
        print(f"stored {len(tiles):,} tiles in {filled - start:.1f} s, ", end="")
        print(f"read {READS:,} in {time.perf_counter() - read:.1f} s")
        print("a tile that was never there:", tiles[SIDE, SIDE][:4], "...", len(tiles) - len(places), "more now")
        assert sum(tiles[place][0] == height for place, height in edited.items()) == EDITS

        tiles.regrow((0, 0), lambda: "a liar")  # a recipe for one key is tried when the value leaves: it does not fit
        assert tiles[0, 0] == tile((0, 0)) or (0, 0) in edited
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6:,.0f} MB")

    moods = ["honest"]
    with ThermalDict.open(memory_limit=1, regrow=lambda key: [key, *moods] * 20, regrow_always=True) as d:
        d["k"] = ["k", "honest"] * 20
        print("k is", d.where("k").name)
        moods[0] = "lying"
        try:
            d["k"]
        except RegrowError as error:
            print("RegrowError:", error)


if __name__ == "__main__":
    main()
