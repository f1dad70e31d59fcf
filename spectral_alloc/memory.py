"""SpectralMemory: malloc, access and free on a heap that moves, tiers, and gives memory back."""

import os
from collections.abc import Sequence
from enum import IntEnum
from math import prod
from types import TracebackType
from typing import Any, NamedTuple, Self, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spectral_alloc import lattice
from spectral_alloc._cell import Budget
from spectral_alloc._heap import HEAT_PER_DOUBLING, HeapCore
from spectral_alloc._heap_census import bands, check
from spectral_alloc.cold_store import ColdStore
from spectral_alloc.errors import ClosedError
from spectral_alloc.file_system import REAL_FILE_SYSTEM, FileSystem
from spectral_alloc.frame import FrameCodec
from spectral_alloc.generated_blocks import GENERATED_AXIS, GeneratedBlocks, axis_of, space_start
from spectral_alloc.generative_space import GenerativeSpace
from spectral_alloc.governor import governor
from spectral_alloc.heat import FREQUENCY_PER_DOUBLING
from spectral_alloc.memory_arguments import item_bytes, redundancy_of, whole
from spectral_alloc.memory_disk import scrub
from spectral_alloc.memory_rest import AUTO, COLD, HOT, WARM, demote, rest, settle
from spectral_alloc.memory_stats import RESIDENCY_OF_BLOCK, MemoryStats, gather
from spectral_alloc.memory_tiers import STEP_BYTES, MemoryTiers
from spectral_alloc.memory_touch import memory_array
from spectral_alloc.residency import Residency
from spectral_alloc.space_touch import shape_of
from spectral_alloc.spectrum import Spectrum, zeros
from spectral_alloc.stripes import ScrubReport, Stripes
from spectral_alloc.units import BYTES_MAX, format_bytes, parse_bytes

__all__ = [
    "SMEM_AUTO",
    "SMEM_COLD",
    "SMEM_HOT",
    "SMEM_WARM",
    "BlockInfo",
    "HierarchicalSpectralMemory",
    "SpectralMemory",
    "Temperature",
]


class Temperature(IntEnum):
    """How much a new block is going to be used, and where it rests when nobody uses it (SpectralMemory.settle)."""

    AUTO = AUTO  #: heat alone decides
    HOT = HOT  #: in memory as long as there is room
    WARM = WARM  #: compressed in memory
    COLD = COLD  #: on disk


SMEM_AUTO, SMEM_HOT, SMEM_WARM, SMEM_COLD = Temperature
#: The frequency of a block that was given none, by temperature.
DEFAULT_FREQUENCIES = (60.0, 120.0, 60.0, 20.0)
CODEC_SAMPLE_BYTES = 256 << 10


class BlockInfo(NamedTuple):
    """What an address says, and what its block is now."""

    address: int
    zero_index: int  #: of the band it was made in
    gamma: float  #: frequency of that band
    class_: int  #: arena, 0 to 11
    channel: int  #: prime
    axis: int  #: 1 stored, 2 generated until written
    local: int  #: serial in its arena
    size: int
    residency: Residency
    band: float  #: frequency of the band that its heat is in now
    mismatch: float  #: distance from its heat's frequency to that band
    pins: int  #: views and arrays that hold it in place
    space_start: int | None  #: axis 2: the address of its first value in ``space``


class SpectralMemory(HeapCore):
    """A heap whose blocks stay valid at their address while their bytes move between RAM, compressed RAM and disk.

    Parameters: n_zeros (bands, 1 to 10,000), memory_limit (bytes, or text such as "64 MB", for pages, frames and
    bookkeeping; None shares the process's limit), spill_dir (existing directory for spill files; None for the
    system's), seed (an int: of the space that blocks of axis 2 show, and of the class of each channel's first block),
    disk_limit, codec (as for ThermalDict.open), redundancy (parity shards for ten cold frames: 0, 1 or 2),
    file_system (for tests).
    Errors: ValueError or TypeError for a bad setting, FileNotFoundError, NotADirectoryError
    or PermissionError for a bad directory; each names what was given.
    Cost: malloc and free together about two bytearrays, access about a dict look-up; a block that is away takes a
    decode, and a disk read when cold. Memory beside the bytes: 8 bytes and a table entry of 8 for each block.
    Threads: any method from any thread; each of the twelve arenas has a lock of its own. After fork the child has
    the same blocks. Addresses mean nothing in another process, so it cannot be pickled.

    >>> from spectral_alloc import SMEM_HOT, SpectralMemory
    >>> with SpectralMemory(n_zeros=100, memory_limit="64 MB") as mem:
    ...     address = mem.malloc(size=1024, temperature=SMEM_HOT, t_virtual=180.0)
    ...     mem.write(address, b"bytes")
    ...     mem.read(address, size=5), mem.access(address), round(mem.resolve(address).gamma, 3)
    ...     mem.free(address)
    (b'bytes', <Residency.HOT: 'hot'>, 179.916)
    """

    # Without a dict, so that CPython calls its methods the short way; weak references end before the attributes do.
    __slots__ = ("__weakref__", "_generated", "_reference", "_retuned", "_spectrum", "_spill", "_tiers")

    def __init__(
        self,
        n_zeros: SupportsIndex = 100,
        *,
        memory_limit: int | str | None = None,
        spill_dir: "str | os.PathLike[str] | None" = None,
        seed: SupportsIndex = 0,
        disk_limit: int | str | None = None,
        codec: str | None = None,
        redundancy: SupportsIndex = 0,
        file_system: FileSystem = REAL_FILE_SYSTEM,
    ) -> None:
        if self._is_open:
            raise RuntimeError("this SpectralMemory is made already; another call of __init__ would lose its blocks")
        spectrum = Spectrum(n_zeros)
        limit_bytes = None if memory_limit is None else parse_bytes(memory_limit, "memory_limit")
        disk_bytes = None if disk_limit is None else parse_bytes(disk_limit, "disk_limit")
        seed, parity_count = whole(seed, "seed"), redundancy_of(redundancy)
        store = ColdStore(spill_dir, disk_bytes, file_system)
        self._spectrum = spectrum
        self._spill = spill_dir, disk_bytes
        self._retuned = 0
        frames = Stripes(store, parity_count) if parity_count else store
        self._generated = GeneratedBlocks(self, seed)
        frame_codec = FrameCodec(codec, sample_limit_bytes=CODEC_SAMPLE_BYTES)
        self._tiers = MemoryTiers(self, frames, frame_codec, self._generated)
        budget = governor.budget if limit_bytes is None else governor.own_budget(limit_bytes)
        steps = [lattice.EXPONENTS[prime] for prime in lattice.PRIMES]
        indices = np.array(list(spectrum), dtype=np.int64)
        self._open(
            budget,
            np.ascontiguousarray(zeros(len(spectrum))),
            indices,
            steps,
            seed % lattice.CLASS_COUNT,
            RESIDENCY_OF_BLOCK,
            DEFAULT_FREQUENCIES,
            FREQUENCY_PER_DOUBLING,
        )
        self._reference = governor.register(self)

    # what the compiled part asks for --------------------------------------------------------------------------------

    def _relieve(self) -> None:
        governor.relieve_larger(self)
        self._tiers.relieve()
        if self.excess_bytes() > 0:
            governor.relieve_others(self)

    def _relieve_at_last(self) -> None:
        self._tiers.try_again()
        self._relieve()

    def _obstacle(self) -> str:
        return self._tiers.obstacle

    def _guarded(self) -> list[int]:
        return self._tiers.guarded

    def _make_way(self, number: int, size: int, wanted: int = 0) -> bool:
        return self._tiers.make_way(number, size, wanted)

    def _come_back(self, address: int) -> None:
        self._tiers.come_back(address)

    def _read_away(self, address: int, offset: int, length: int) -> bytes | None:
        self._touch(address)
        return self._tiers.read_away(address, offset, length)

    def _write_pages(self, address: int, data: Any, offset: int) -> bool:
        return self._generated.write(address, data, offset)

    def _resize_pages(self, address: int, size: int) -> bool:
        return self._generated.resize(address, size)

    def _written_small(self, address: int) -> None:
        rest(self._tiers, address)

    def _accessed_slow(self, address: int, state: int) -> Residency:
        if self._tiers.is_due(address):
            self._tiers.come_back(address)
        return self.where(address)

    def _release(self, place: int, length: int) -> None:
        self._tiers.store.release(place, length)

    # using blocks -----------------------------------------------------------------------------------------------------

    def array(
        self,
        address: int | None = None,
        dtype: DTypeLike = np.uint8,
        shape: "SupportsIndex | Sequence[SupportsIndex] | None" = None,
        *,
        resident_limit: int | str | None = None,
    ) -> NDArray[Any]:
        """A numpy array on the bytes of a block, which stays in place, and cannot be freed, while the array lives.

        Without an address: a new array of zeros of any size on no block, whose pages come when they are touched and
        leave, packed, above resident_limit (None: a quarter of the memory limit); docs/touch.md.
        Parameters: dtype, shape (None: one dimension, as many items as fit).
        Errors: ValueError when the block is smaller than the array or the dtype holds objects or nothing; TypeError
        for another shape; StaleAddressError or UnknownAddressError. Cost: a view and an array object; a block that is
        away comes back. Threads: any.

        >>> from spectral_alloc import SpectralMemory
        >>> with SpectralMemory() as mem:
        ...     address = mem.malloc(800)
        ...     mem.array(address, "f8")[:] = 1.5
        ...     float(mem.array(address, "f8", (10, 10)).sum())
        150.0
        >>> with SpectralMemory(memory_limit="64 MB") as mem:
        ...     array = mem.array(None, "f8", 2**30)
        ...     array[2**29] = 1.5
        ...     float(array[2**29 - 1 : 2**29 + 2].sum())
        1.5
        """
        if address is None:
            self._raise_closed()
            if shape is None:
                raise TypeError("an array without an address needs a shape")
            return memory_array(self, shape, dtype, resident_limit, *self._spill)
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise ValueError(f"a block holds bytes, not Python objects: dtype {kind} cannot lie in one")
        lengths = None if shape is None else shape_of(shape)
        view = self.view(address)
        size = view.nbytes
        if lengths is None:
            lengths = (size // item_bytes(kind),)
        wanted = prod(lengths) * kind.itemsize
        if wanted > size:
            raise ValueError(f"an array of {wanted} bytes does not fit the block of {size} at {address:#018x}")
        made: NDArray[Any] = np.ndarray(lengths, kind, buffer=view)
        return made

    def resolve(self, address: int) -> BlockInfo:
        """What an address says and what its block is. Errors: StaleAddressError, UnknownAddressError. O(1).

        >>> from spectral_alloc import SpectralMemory
        >>> with SpectralMemory(seed=3) as mem:
        ...     info = mem.resolve(mem.malloc(100, t_virtual=180.0, channel=7))
        >>> info.zero_index, info.class_, info.channel, info.axis, info.local, info.size
        (69, 3, 7, 1, 1, 100)
        """
        state, size, _, _, heat, _, pins, _ = self._look(address)
        zero = address >> 41
        band = float(zeros()[bands(self)[heat] - 1])
        frequency = float(zeros()[0]) + FREQUENCY_PER_DOUBLING * heat / HEAT_PER_DOUBLING
        residency = RESIDENCY_OF_BLOCK[state]
        assert residency is not None
        return BlockInfo(
            address=address,
            zero_index=zero,
            gamma=float(zeros()[zero - 1]),
            class_=address >> 37 & 15,
            channel=lattice.PRIMES[address >> 34 & 7],
            axis=address >> 32 & 3,
            local=address & 0xFFFFFFFF,
            size=size,
            residency=residency,
            band=band,
            mismatch=abs(frequency - band),
            pins=pins,
            space_start=self._space_start(address) if axis_of(address) == GENERATED_AXIS else None,
        )

    # generated blocks -------------------------------------------------------------------------------------------------

    @property
    def space(self) -> GenerativeSpace:
        """The space whose function blocks of axis 2 show where nobody has written; edits of it do not appear in them.

        >>> from spectral_alloc import SpectralMemory
        >>> with SpectralMemory(seed=1337, memory_limit="1 MB") as mem:
        ...     address = mem.malloc(1 << 32, axis=2)           # 4 GiB, of which no byte is held
        ...     start = mem.resolve(address).space_start
        ...     mem.read(address, 8000, 16) == mem.space[start + 1000 : start + 1002].tobytes()
        True
        """
        self._raise_closed()
        return self._generated.space

    def attach_space(self, space: GenerativeSpace) -> None:
        """Let blocks of axis 2 show another space: its function, not its edits.

        Parameters: space (of any seed and values). Errors: TypeError for what is no space; ValueError while there are
        blocks on axis 2, which would change. Cost: O(blocks).
        """
        self._raise_closed()
        if not isinstance(space, GenerativeSpace):
            raise TypeError(f"space must be a GenerativeSpace, not {space!r}")
        count = self.get_stats().generated_blocks
        if count:
            raise ValueError(f"{count} blocks on axis 2 show {self.space!r}; attach a space before the first of them")
        self._generated.attach(space)

    def _space_start(self, address: int) -> int:
        return space_start(address, self.space.dtype.itemsize)

    def where(self, address: int) -> Residency:
        """Where the bytes of a block are, without counting an access. Errors: StaleAddressError,
        UnknownAddressError."""
        residency = RESIDENCY_OF_BLOCK[self._look(address)[0]]
        assert residency is not None
        return residency

    def retune(self, address: int, t_virtual: float) -> float:
        """Give a block another frequency: its heat is that of the nearest band from now on; returns that band's gamma.

        The address stays, with the band it was made in. Errors: ValueError for what is no frequency. O(1).

        >>> from spectral_alloc import SpectralMemory
        >>> with SpectralMemory() as mem:
        ...     address = mem.malloc(10, t_virtual=20.0)
        ...     round(mem.retune(address, 180.0), 3), mem.get_stats().migrations
        (179.916, 1)
        """
        resonance = self._spectrum.quantize(t_virtual)
        _, _, _, _, heat, hint, *_ = self._look(address)
        code = round((resonance.gamma - float(zeros()[0])) / FREQUENCY_PER_DOUBLING * HEAT_PER_DOUBLING)
        self._retune(address, hint, min(code, 1023))
        self._retuned += bands(self)[heat] != resonance.index
        return resonance.gamma

    # tiers and compaction by hand -------------------------------------------------------------------------------------

    def promote(self, address: int) -> Residency:
        """Bring the bytes of a block into place and return where they are now. Errors: as view."""
        self._look(address)  # which says so if it is no address
        self._tiers.come_back(address)
        return self.where(address)

    def demote(self, address: int) -> Residency:
        """Move a block one tier down, if it is not viewed, and return where it is now.

        >>> from spectral_alloc import SpectralMemory
        >>> with SpectralMemory() as mem:
        ...     address = mem.malloc(10_000)
        ...     mem.write(address, bytes(range(250)) * 40)
        ...     mem.demote(address), mem.demote(address), mem.read(address, 9_999)
        (<Residency.WARM: 'warm'>, <Residency.COLD: 'cold'>, b'\\xf9')
        """
        demote(self._tiers, address)
        return self.where(address)

    def settle(self) -> int:
        """Put blocks made SMEM_WARM into compressed memory and those made SMEM_COLD on disk; returns how many moves.

        Without memory pressure blocks stay where they were used last; this puts them to rest. Cost: O(blocks) and
        the moves.
        """
        return settle(self._tiers)

    def compact(self, step_bytes: SupportsIndex = STEP_BYTES) -> int:
        """Move blocks together so that resident memory follows what is live; returns the bytes that were moved.

        Parameters: step_bytes (moved or looked at under a lock at once: 256 KiB take about 0.2 ms).
        Blocks that are viewed stay. Files of cold frames that are half dead are written anew. Runs by itself when the
        memory limit presses. Threads: any; the GIL is released.
        """
        self._raise_closed()
        step = whole(step_bytes, "step_bytes")
        if step < 1:
            raise ValueError(f"step_bytes must be at least 1, not {step_bytes!r}")
        moved = self._tiers.compact(min(step, BYTES_MAX))
        self._tiers.compact_files(None)
        return moved

    def scrub(self) -> ScrubReport:
        """Read every frame and check it; repair damaged ones on disk by their stripe, if redundancy is 1 or 2.

        Returns: shards and blocks checked, shards repaired, addresses of blocks that are lost. Cost: a read of all
        frames.

        >>> from spectral_alloc import SpectralMemory
        >>> with SpectralMemory(redundancy=2) as mem:
        ...     mem.scrub()
        ScrubReport(checked=0, repaired=0, lost=())
        """
        self._raise_closed()
        return scrub(self._tiers)

    # looking at it ----------------------------------------------------------------------------------------------------

    def get_stats(self) -> MemoryStats:
        """A snapshot of figures. Cost: O(blocks), without the GIL where it is long.

        >>> from spectral_alloc import SpectralMemory
        >>> with SpectralMemory() as mem:
        ...     address = mem.malloc(1024, t_virtual=180.0)
        ...     round(mem.get_stats().mean_mismatch, 3), mem.get_stats()["blocks"]
        (0.084, 1)
        """
        self._raise_closed()
        tiers = self._tiers
        return gather(
            self,
            retuned=self._retuned,
            promotions=tiers.promotions,
            demotions=tiers.demotions,
            spills=tiers.spills,
            compactions=tiers.compactions,
            compaction_step_seconds_max=tiers.step_seconds_max,
            disk_live_bytes=tiers.store.live_bytes,
            disk_dead_bytes=tiers.store.dead_bytes,
            repairs=getattr(tiers.store, "repairs", 0),
            events=dict(tiers.events),
        )

    @property
    def memory_limit(self) -> int:
        """The limit in bytes that this heap keeps to, its own or the process's; it may be set while running."""
        return int(self.budget.limit_bytes)

    @memory_limit.setter
    def memory_limit(self, limit: int | str | None) -> None:
        self._raise_closed()
        limit_bytes = None if limit is None else parse_bytes(limit, "memory_limit")
        self.rebudget(governor.budget if limit_bytes is None else governor.own_budget(limit_bytes))
        self._settle()

    def check(self) -> None:
        """Walk every invariant of heap and disk. Errors: AssertionError that names what is broken. For tests."""
        self._raise_closed()
        check(self)
        self._generated.check()
        self._tiers.store.check()

    def __repr__(self) -> str:
        if self.closed:
            return "<closed SpectralMemory>"
        used, limit = format_bytes(self.used_bytes), format_bytes(self.memory_limit)
        return f"<SpectralMemory of {len(self._spectrum)} bands, {used} of {limit} resident>"

    # the end ----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Forget all blocks and remove the spill files; may be repeated.

        Views and arrays that are still alive stay valid, and keep their arena in memory until the last of them is gone.
        """
        if self.closed:
            return
        governor.withdraw(self._reference)
        self._close()
        self._tiers.store.close()

    def __enter__(self) -> Self:
        self._raise_closed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise TypeError("a SpectralMemory cannot be pickled or copied: its addresses mean nothing elsewhere")

    def _raise_closed(self) -> None:
        if self.closed:
            raise ClosedError("this SpectralMemory is closed; its blocks are gone")

    # what the governor asks for ---------------------------------------------------------------------------------------

    @property
    def _ledger(self) -> Self:
        return self

    def _join(self, parent: Budget) -> None:
        """A process limit was set: a budget of our own now counts against it too."""
        if self.budget is not parent and self.budget.parent is None:
            self.rebudget(Budget(self.budget.limit_bytes, parent))

    def _settle(self) -> None:
        if not self.closed and self.excess_bytes() > 0:
            self._relieve()

    def _work(self) -> None:
        """Nothing is left to the background writer."""

    def _after_fork_in_child(self) -> None:
        self._forget_reserved()
        self._tiers.after_fork_in_child()


HierarchicalSpectralMemory = SpectralMemory
