"""The systems of the race, each configured as its own documentation advises for data larger than memory.

Every system is a mapping from text to values. What has a subscript of its own is used as it is; the others get the
thinnest class that pickles. ``Setup`` is what a system may know: a directory, the memory it may plan with, and how
large the values are. The rest of the cage is page cache, for all of them alike.
"""

import os
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

COMMIT_WRITES = 5_000
COMMIT_BYTES = 32_000_000  # LMDB keeps a transaction's pages in memory, and 5,000 arrays would not fit
ENTRY_BYTES = 150  # a key and its slot, for systems that count entries
dump = partial(pickle.dumps, protocol=5)


@dataclass(frozen=True)
class Setup:
    """What a system is told: where to store, how many bytes to plan with, how many values of how many bytes."""

    directory: Path
    memory_bytes: int
    value_count: int
    live_bytes: int

    @property
    def data_bytes(self) -> int:
        """All values as live objects; pickled they are smaller, but for arrays."""
        return self.value_count * self.live_bytes


class Lmdb:
    """LMDB as a mapping: one write transaction at a time, which also reads, so that reads see every write."""

    def __init__(self, setup: Setup) -> None:
        import lmdb

        size = 4 * setup.data_bytes + (64 << 20)
        self.environment = lmdb.open(str(setup.directory), map_size=size, readahead=False, sync=False, metasync=False)
        self.transaction = self.environment.begin(write=True, buffers=True)
        self.writes = self.bytes = 0

    def __getitem__(self, key: str) -> Any:
        data = self.transaction.get(key.encode())
        if data is None:
            raise KeyError(key)
        return pickle.loads(data)

    def __setitem__(self, key: str, value: Any) -> None:
        data = dump(value)
        self.transaction.put(key.encode(), data)
        self.writes += 1
        self.bytes += len(data)
        if self.writes >= COMMIT_WRITES or self.bytes >= COMMIT_BYTES:
            self.transaction.commit()
            self.transaction = self.environment.begin(write=True, buffers=True)
            self.writes = self.bytes = 0

    def close(self) -> None:
        """Commit and close."""
        self.transaction.commit()
        self.environment.close()


class CachedLmdb(Lmdb):
    """LMDB behind a cache of live objects; writes go to both."""

    def __init__(self, setup: Setup) -> None:
        import cachebox

        super().__init__(setup)
        self.cache: Any = cachebox.LRUCache(setup.memory_bytes // (setup.live_bytes + ENTRY_BYTES))

    def __getitem__(self, key: str) -> Any:
        value = self.cache.get(key)
        if value is None:
            value = self.cache[key] = super().__getitem__(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.cache[key] = value


def open_thermal(setup: Setup) -> Any:
    from spectral_alloc import ThermalDict

    return ThermalDict.open(memory_limit=setup.memory_bytes, spill_dir=setup.directory)


def open_zict(setup: Setup) -> Any:
    import zict

    slow = zict.Func(dump, pickle.loads, zict.File(str(setup.directory)))
    weight = setup.live_bytes + ENTRY_BYTES
    return zict.Buffer({}, slow, setup.memory_bytes, weight=lambda _key, _value: weight)


def open_rocksdict(setup: Setup) -> Any:
    import rocksdict

    return rocksdict.Rdict(str(setup.directory / "rocks"))


def open_rocksdict_tuned(setup: Setup) -> Any:
    import rocksdict

    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(rocksdict.Cache(setup.memory_bytes // 2))
    blocks.set_bloom_filter(10, False)
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options = rocksdict.Options()
    options.increase_parallelism(os.cpu_count() or 1)
    options.set_write_buffer_size(setup.memory_bytes // 4)
    options.set_block_based_table_factory(blocks)
    return rocksdict.Rdict(str(setup.directory / "rocks"), options)


def open_diskcache(setup: Setup) -> Any:
    import diskcache

    return diskcache.Index.fromcache(diskcache.Cache(str(setup.directory), eviction_policy="none"))


def open_shelve(setup: Setup) -> Any:
    import shelve

    return shelve.open(str(setup.directory / "shelf"), flag="n", protocol=5)


@dataclass(frozen=True)
class System:
    """One entrant: how to open it, the packages that it needs, how it is configured; ``is_caged`` if under the cap."""

    open: Callable[[Setup], Any]
    packages: tuple[str, ...]
    configuration: str
    is_caged: bool = True

    @property
    def is_installed(self) -> bool:
        """Whether every package that it needs is there."""
        try:
            return all(version(package) for package in self.packages)
        except PackageNotFoundError:
            return False


SYSTEMS = {
    "dict": System(lambda _setup: {}, (), "no cap: what memory would give", is_caged=False),
    "thermal": System(open_thermal, (), "ThermalDict.open(memory_limit=LIMIT)"),
    "rocksdict": System(open_rocksdict, ("rocksdict",), "Rdict(path), all defaults; it pickles by itself"),
    "rocksdict-tuned": System(
        open_rocksdict_tuned,
        ("rocksdict",),
        "block cache LIMIT / 2 with index and filters in it, bloom filters of 10 bits, write buffer LIMIT / 4, "
        "increase_parallelism (RocksDB's tuning guide)",
    ),
    "lmdb": System(
        Lmdb,
        ("lmdb",),
        "readahead=False (advised for more data than RAM), sync=False, metasync=False, buffers=True; commits every "
        "5,000 writes or 32 MB; pickle protocol 5",
    ),
    "lmdb+cachebox": System(
        CachedLmdb, ("lmdb", "cachebox"), "as lmdb, behind cachebox.LRUCache(LIMIT / (live size + 150)), write-through"
    ),
    "zict": System(
        open_zict,
        ("zict",),
        "Buffer({}, Func(pickle.dumps, pickle.loads, File(path)), n=LIMIT), weight: the measured live size "
        "(sys.getsizeof, as in its example, sees a tenth of a record)",
    ),
    "diskcache": System(
        open_diskcache, ("diskcache",), 'Index of a Cache with eviction_policy="none"; filled by 5,000 in transact()'
    ),
    "shelve": System(open_shelve, (), "shelve.open(path, protocol=5) over the best dbm that this Python has"),
}


def batch(store: Any) -> AbstractContextManager[object]:
    """Around a batch of first writes: a transaction, for the system that says it writes faster so (diskcache)."""
    return store.transact() if hasattr(store, "transact") else nullcontext()


def details(name: str, store: Any) -> dict[str, Any]:
    """What a system tells about itself after the race."""
    if name == "thermal":
        stats = store.stats()
        names = (
            "hot_entries warm_entries cold_entries used_bytes limit_bytes slack_bytes entry_bytes hot_bytes warm_bytes "
            "buffer_bytes hits_hot hits_warm hits_cold promotions demotions spills compression_ratio events"
        )
        return {field: getattr(stats, field) for field in names.split()}
    if name == "shelve":
        return {"dbm": type(store.dict).__module__}
    return {}
