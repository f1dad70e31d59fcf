"""What does durability cost? ThermalDict(path) against sqlite3 (WAL), lmdb and rocksdict, in one run.

Method: records of about 300 bytes as a program has them (dicts), peers get them pickled; each store in a fresh
directory of the same disk; puts and reopening are repeated, puts in turns, and the least counts. *none*: all puts,
then one sync or commit. *interval*: a commit and fsync whenever 0.5 s have passed. *always*: a commit and fsync for
every put (fewer puts, since each waits for the disk). *reopen*: close, open, read one value. *get*: random reads after
that (for ThermalDict from the disk: its heat file is removed, so that nothing is brought back). *compact*: half of the
records overwritten three times, then the store's own compaction; disk before and after. The peers are an extra (pip
install "spectral_alloc[peers]"); those that are not installed are left out. Limits: one process and one thread, the
page cache is warm, and the disk's own cache is as the machine has it.
"""

import argparse
import importlib.util
import os
import pickle
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import machine, save

from spectral_alloc import ThermalDict

INTERVAL_SECONDS = 0.5
REPEATS = 3
MODES = ("none", "interval", "always")


def record(number: int) -> dict[str, Any]:
    """A value as programs have them."""
    chance = random.Random(number)
    return {
        "id": number,
        "name": f"name {chance.randrange(10**9)}",
        "tags": ["a", "b", str(number)],
        "text": chance.randbytes(90).hex(),
    }


class Store:
    """What the measurement needs of a store; a peer commits when told."""

    name = ""

    def __init__(self, path: Path, mode: str) -> None:
        self.path, self.mode = path, mode

    def put(self, key: str, value: Any) -> None:
        """Store a value, without more durability than the store gives by itself."""

    def get(self, key: str) -> Any:
        """Read a value."""

    def commit(self) -> None:
        """Make durable what was put."""

    def compact(self) -> None:
        """Give disk space back."""

    def close(self) -> None:
        """Close it."""

    def __len__(self) -> int:
        return 0


class Thermal(Store):
    """ThermalDict.open(path)."""

    name = "ThermalDict"
    codec: str | None = None

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self.dict: ThermalDict[str, Any] = ThermalDict.open(
            path, durability=mode, interval_seconds=INTERVAL_SECONDS, codec=self.codec
        )

    def put(self, key: str, value: Any) -> None:
        self.dict[key] = value

    def get(self, key: str) -> Any:
        return self.dict[key]

    def commit(self) -> None:
        self.dict.sync()

    def compact(self) -> None:
        journal: Any = self.dict._journal
        self.dict.sync()
        journal.log.seal()
        tiers: Any = self.dict._tiers
        tiers.compact(self.dict)

    def close(self) -> None:
        self.dict.close()

    def __len__(self) -> int:
        return len(self.dict)


class ThermalRaw(Thermal):
    """The same without compression, like the peers."""

    name = "... codec=raw"
    codec = "raw"


class Sqlite(Store):
    """sqlite3 of the standard library, a rowid table with an index on the key."""

    name = "sqlite3 WAL"

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        path.mkdir(exist_ok=True)
        self.connection = sqlite3.connect(path / "db")
        self.connection.execute("pragma journal_mode=wal")
        self.connection.execute("pragma synchronous=full")
        self.connection.execute("create table if not exists t (k text primary key, v blob)")
        self.connection.commit()

    def put(self, key: str, value: Any) -> None:
        self.connection.execute("insert or replace into t values (?, ?)", (key, pickle.dumps(value, 5)))

    def get(self, key: str) -> Any:
        return pickle.loads(self.connection.execute("select v from t where k = ?", (key,)).fetchone()[0])

    def commit(self) -> None:
        self.connection.commit()

    def compact(self) -> None:
        self.connection.commit()
        self.connection.execute("vacuum")
        self.connection.execute("pragma wal_checkpoint(truncate)")

    def close(self) -> None:
        self.connection.commit()
        self.connection.close()

    def __len__(self) -> int:
        return int(self.connection.execute("select count(*) from t").fetchone()[0])


class Lmdb(Store):
    """py-lmdb, one write transaction between two commits."""

    name = "lmdb"

    def __init__(self, path: Path, mode: str) -> None:
        import lmdb

        super().__init__(path, mode)
        self.environment = lmdb.open(str(path), map_size=1 << 34)
        self.transaction = self.environment.begin(write=True)

    def put(self, key: str, value: Any) -> None:
        self.transaction.put(key.encode(), pickle.dumps(value, 5))

    def get(self, key: str) -> Any:
        return pickle.loads(self.transaction.get(key.encode()))

    def commit(self) -> None:
        self.transaction.commit()
        self.transaction = self.environment.begin(write=True)

    def compact(self) -> None:
        self.commit()
        target = self.path.with_name(self.path.name + "-compact")
        target.mkdir()
        self.environment.copy(str(target), compact=True)
        self.close()
        shutil.rmtree(self.path)
        target.rename(self.path)
        self.__init__(self.path, self.mode)  # type: ignore[misc]  # opened again, as its users must do

    def close(self) -> None:
        self.transaction.commit()
        self.environment.close()

    def __len__(self) -> int:
        return int(self.environment.stat()["entries"])


class Rocks(Store):
    """rocksdict with its write-ahead log; the log is flushed to the disk at commits."""

    name = "rocksdict"

    def __init__(self, path: Path, mode: str) -> None:
        import rocksdict

        super().__init__(path, mode)
        self.dict = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        if mode == "always":
            options = rocksdict.WriteOptions()
            options.sync = True
            self.dict.set_write_options(options)

    def put(self, key: str, value: Any) -> None:
        self.dict[key.encode()] = pickle.dumps(value, 5)

    def get(self, key: str) -> Any:
        return pickle.loads(self.dict[key.encode()])

    def commit(self) -> None:
        if self.mode != "always":
            self.dict.flush_wal(True)

    def compact(self) -> None:
        self.dict.flush()
        self.dict.compact_range(None, None)

    def close(self) -> None:
        self.dict.close()


def disk_bytes(path: Path) -> int:
    """Bytes that the files of a store take."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def seconds_of(work: Callable[[], object]) -> float:
    """How long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def put_seconds(store: Store, values: list[tuple[str, Any]]) -> float:
    """Put all values, committing as the mode says."""
    start = last = time.perf_counter()
    own_timer = isinstance(store, Thermal)  # it commits by itself; the last sync() is measured with the rest
    for key, value in values:
        store.put(key, value)
        if store.mode == "always" and not own_timer:
            store.commit()
        elif store.mode == "interval" and not own_timer and time.perf_counter() - last > INTERVAL_SECONDS:
            store.commit()
            last = time.perf_counter()
    store.commit()
    return time.perf_counter() - start


def measure_puts(
    kind: type[Store], directory: Path, values: list[tuple[str, Any]], settled_count: int
) -> dict[str, float]:
    """Microseconds of a put in each mode; the store of mode "none" is left."""
    row: dict[str, float] = {}
    for mode in MODES:
        path = directory / f"{kind.__name__}-{mode}"
        shutil.rmtree(path, ignore_errors=True)
        some = values[:settled_count] if mode == "always" else values
        store = kind(path, mode)
        row[f"put {mode}, us"] = put_seconds(store, some) / len(some) * 1e6
        store.close()
    return row


def measure_rest(kind: type[Store], directory: Path, values: list[tuple[str, Any]]) -> dict[str, float]:
    """The other columns of a row."""
    count = len(values)
    path = directory / f"{kind.__name__}-none"
    row = {"disk, MB": disk_bytes(path) / 1e6}
    (path / "heat").unlink(missing_ok=True)
    row["reopen, ms"] = min(reopened_seconds(kind, path, values) for _ in range(REPEATS)) * 1e3
    (path / "heat").unlink(missing_ok=True)
    store = kind(path, "none")
    chance = random.Random(1)
    keys = [f"key-{chance.randrange(count):09d}" for _ in range(min(count, 20_000))]
    row["get, us"] = seconds_of(lambda: [store.get(key) for key in keys]) / len(keys) * 1e6
    for turn in range(3):
        for number in range(0, count, 2):
            store.put(values[number][0], record(number + turn + 1))
        store.commit()
    row["before, MB"] = disk_bytes(path) / 1e6
    row["compact, s"] = seconds_of(store.compact)
    row["after, MB"] = disk_bytes(path) / 1e6
    store.close()
    return row


def reopened_seconds(kind: type[Store], path: Path, values: list[tuple[str, Any]]) -> float:
    """Seconds to open a store and read one value."""
    start = time.perf_counter()
    store = kind(path, "none")
    value = store.get(values[1][0])
    seconds = time.perf_counter() - start
    assert value == values[1][1]
    store.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--settled-count", type=int, default=500, help="puts of the mode that waits for each")
    parser.add_argument("--directory", default=None, help="on the disk to be measured")
    given = parser.parse_args()
    kinds: list[type[Store]] = [Thermal, ThermalRaw, Sqlite]
    kinds += [kind for kind, module in ((Lmdb, "lmdb"), (Rocks, "rocksdict")) if importlib.util.find_spec(module)]
    print(machine())
    values = [(f"key-{number:09d}", record(number)) for number in range(given.count)]
    rows: dict[str, dict[str, float]] = {kind.name: {} for kind in kinds}
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        for _ in range(REPEATS):
            for kind in kinds:
                row, made = rows[kind.name], measure_puts(kind, Path(directory), values, given.settled_count)
                row.update({name: min(figure, row.get(name, figure)) for name, figure in made.items()})
        for kind in kinds:
            rows[kind.name].update(measure_rest(kind, Path(directory), values))
    columns = list(rows[kinds[0].name])
    print(f"{'store':14}" + "".join(f"{column:>18}" for column in columns))
    for name, row in rows.items():
        print(f"{name:14}" + "".join(f"{row[column]:>18.1f}" for column in columns))
    save("durable", {"count": given.count, "rows": rows, "cores": os.cpu_count()})


if __name__ == "__main__":
    main()
