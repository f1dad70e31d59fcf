"""FrameCodec turns the parts of a serialised value into one frame of bytes and back, and chooses how."""

import threading
from collections import deque
from collections.abc import Sequence
from pickle import PickleBuffer
from typing import TYPE_CHECKING, TypeAlias

import lz4.block  # type: ignore[import-untyped]  # lz4 ships no type information
import zstandard

from spectral_alloc import _formula
from spectral_alloc._express import (
    COMPRESS_FROM_BYTES,
    FORMULA_FROM_BYTES,
    FORMULA_SURE_BYTES,
    LARGE_FROM_BYTES,
    RAW_ABOVE_SHARE,
    Express,
)
from spectral_alloc._frame import (
    FORMULA,
    ITEM_SIZE_MAX,
    LZ4,
    RAW,
    ZSTD,
    ZSTD_DICTIONARY,
    pack,
    parse,
    shuffle,
    unshuffle,
)
from spectral_alloc._frame_stats import FrameTally
from spectral_alloc.errors import CodecError, CorruptFrameError
from spectral_alloc.frame_dictionary import (
    SAMPLE_BYTES_MAX,
    EncodingDictionary,
    FrameDictionaries,
    zstd_decompressor,
    zstd_parameters,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from spectral_alloc._frame import Block

__all__ = ["CODECS", "FrameCodec"]

#: The codecs a user may name; without a name the data decide.
CODECS = ("raw", "lz4", "zstd")

#: A payload being compressed or a part being decoded.
Bytes: TypeAlias = bytes | bytearray | memoryview

CODEC_NAMES = {RAW: "raw", LZ4: "lz4", ZSTD: "zstd", ZSTD_DICTIONARY: "zstd_dictionary", FORMULA: "formula"}

#: Parts below this share a block with their neighbours; array memory from here on has its own.
OWN_BLOCK_FROM_BYTES = 512
#: How many times its length a formula may give where anybody may have written it: as many as zstd.
FORMULA_GROWTH_MAX = 1 << 15
SAMPLE_BYTES = 4096
SAMPLE_PIECES = 4
#: LZ4 cannot take more in one block.
LZ4_BYTES_MAX = 0x7E000000
#: LZ4 at this share or better is taken for its speed without looking at zstd ...
LZ4_GOOD_SHARE = 0.67
#: ... but not at this one: near its limit of 255 times zstd is the faster of the two, and takes a tenth of the bytes.
LZ4_TINY_SHARE = 0.02
#: ... which must beat it by so much to be worth its time.
ZSTD_WINS_SHARE = 0.85
#: One in so many small values is compressed both ways, to learn which suits this container.
SMALL_TRIAL_EVERY = 32
#: Small values are short of memory rather than of time, so here a lesser gain decides for zstd.
SMALL_ZSTD_WINS_SHARE = 0.95
SMALL_TRIAL_WEIGHT = 1 / 8
#: A compressor keeps ten times the memory of the largest block it has seen, up to 1.3 MiB: too much for each thread ...
KEEP_COMPRESSOR_BELOW_BYTES = 1 << 15
#: ... but making one takes 50 us, so the process keeps one that no thread is using.
_spare_compressors: deque[zstandard.ZstdCompressor] = deque(maxlen=1)
PLAIN_PARAMETERS = zstd_parameters()
#: Decompressors that a thread keeps, one for each dictionary it has met; each takes about 100 KiB.
DECOMPRESSORS_MAX = 4


class _Contexts(threading.local):
    """The zstd contexts of one thread: they cannot be shared, and making one takes longer than using it."""

    def __init__(self) -> None:
        self.plain: zstandard.ZstdCompressor | None = None
        self.trained: tuple[int, zstandard.ZstdCompressor] | None = None
        self.decompressors: dict[int, zstandard.ZstdDecompressor] = {}


class FrameCodec:
    """Encodes the parts of serialised values into frames and decodes them, for one container.

    Parameters: codec, one of ``"raw"``, ``"lz4"``, ``"zstd"``, or None to choose by the data;
    sample_limit_bytes, the most memory for samples of small values, from which dictionaries are trained
    (below 64 KiB: no dictionaries).
    Errors: ValueError for an unknown codec, TypeError for one that is not a str.
    Cost: a 1 KB pickle takes 5 us to encode and 3 us to decode, 64 KB of numbers 20 to 60 us and 10 us; looking for
    a formula in vain 2 to 8 us of it.
    Threads: any method from any thread; compression holds no lock. Buffers must not change while they are
    encoded. Call :meth:`after_fork` in a forked child.

    >>> codec = FrameCodec()
    >>> frame = codec.encode([b"spectral " * 100], [1])
    >>> len(frame) < 100, codec.decode(frame)[0] == b"spectral " * 100
    (True, True)
    """

    def __init__(self, codec: str | None = None, *, sample_limit_bytes: int = SAMPLE_BYTES_MAX) -> None:
        if codec is not None and not isinstance(codec, str):
            raise TypeError(f"codec must be a str or None, not {type(codec).__name__}")
        if codec is not None and codec not in CODECS:
            raise ValueError(f"unknown codec {codec!r}; known are {', '.join(map(repr, CODECS))} and None")
        self._codec = codec
        uses_zstd = codec is None or codec == "zstd"
        self._dictionaries = FrameDictionaries(sample_limit_bytes if uses_zstd else 0)
        self._contexts = _Contexts()
        self._tally = FrameTally()
        #: The same for the most common values, in one call.
        self.express = Express(self._dictionaries, self._tally)
        self._small_turn = 0
        self._small_zstd_share = 0.0
        #: How many times its own length a formula may give; None for any. Set for frames that others may have written.
        self.formula_growth_max: int | None = None

    @property
    def codec(self) -> str | None:
        """The codec named at construction, or None."""
        return self._codec

    @property
    def dictionaries(self) -> FrameDictionaries:
        """The trained dictionaries of this container."""
        return self._dictionaries

    def encode(self, parts: "Sequence[Buffer]", itemsizes: Sequence[int]) -> bytes:
        """Return the frame of a value.

        Parameters: parts, the pickle stream and then each out-of-band buffer, C- or Fortran-contiguous;
        itemsizes, bytes per element of each part (1: not an array), by which array memory is shuffled.
        Errors: ValueError for no parts, for item sizes that do not match them, for a part that is not
        contiguous; TypeError for one without the buffer protocol; MemoryError or CodecError where compression
        fails: nothing is changed then, and the codec stays usable.
        Cost: one pass over the bytes, plus a probe of 4 KiB in each large part. Threads: safe, takes no lock.
        """
        if len(parts) != len(itemsizes):
            raise ValueError(f"{len(itemsizes)} item sizes for {len(parts)} parts")
        if not parts:
            raise ValueError("a frame needs at least one part")
        if len(parts) == 1:
            data = _as_bytes(parts[0], 0)
            raw_bytes = len(data)
            blocks = [self._block(data, (raw_bytes,), _usable_item_size(itemsizes[0]))]
        else:
            blocks = self._blocks([_as_bytes(part, index) for index, part in enumerate(parts)], itemsizes)
            raw_bytes = sum(sum(block[3]) for block in blocks)
        frame = pack(blocks)
        main = blocks[0] if len(blocks) == 1 else max(blocks, key=lambda block: sum(block[3]))
        self._tally.encoded(main[0], raw_bytes, len(frame))
        return frame

    def decode(self, frame: "Buffer") -> list[Bytes]:
        """Return the parts of a frame, each as bytes, bytearray or memoryview.

        They may be read-only, and those stored raw may be views that keep ``frame`` alive: copy what must be
        writable or must outlive it.
        Errors: CorruptFrameError for damage of any kind, also for a dictionary this container does not have;
        nothing is allocated beyond the raw length that the payload itself can account for.
        Cost: one pass over the bytes. Threads: safe, takes no lock.
        """
        parts: list[Bytes] = []
        for codec, dictionary_id, item_size, raw_lengths, payload in parse(frame):
            raw_bytes = raw_lengths[0] if len(raw_lengths) == 1 else sum(raw_lengths)
            data = self._decompress(codec, dictionary_id, payload, raw_bytes)
            if item_size > 1:
                data = unshuffle(data, item_size)
            if len(raw_lengths) == 1:
                parts.append(data)
                continue
            view, start = memoryview(data), 0
            for length in raw_lengths:
                parts.append(view[start : start + length])
                start += length
        return parts

    @property
    def train_due(self) -> bool:
        """Whether enough small values have been seen for :meth:`train`; cheap to ask after each encode."""
        return self._dictionaries.train_due

    def train(self) -> bool:
        """Train a dictionary on the values seen, if that is due; returns whether a better one is now in use.

        Cost: some 30 ms, nearly all with the GIL released: call it from a background thread.
        Threads: safe, never blocks encode; a second call meanwhile returns False at once.
        """
        return self._dictionaries.train()

    @property
    def resident_bytes(self) -> int:
        """The bytes of dictionaries and samples; zstd contexts beside them take 500 KiB a thread, 1.3 MiB a process."""
        return self._dictionaries.resident_bytes

    @property
    def ratio(self) -> float:
        """Raw bytes divided by frame bytes over everything encoded so far; 1.0 before that."""
        counts = [self._tally.counts(code) for code in CODEC_NAMES]
        frame_bytes = sum(count[2] for count in counts)
        return sum(count[1] for count in counts) / frame_bytes if frame_bytes else 1.0

    def stats(self) -> dict[str, dict[str, int]]:
        """Return frames, raw_bytes, frame_bytes, failures by codec; a frame counts for its largest block."""
        fields = ("frames", "raw_bytes", "frame_bytes", "failures")
        counts = {name: self._tally.counts(code) for code, name in CODEC_NAMES.items()}
        return {name: dict(zip(fields, count, strict=True)) for name, count in counts.items()}

    def after_fork(self) -> None:
        """Make the child's copy usable; call it in the child before anything else uses the codec."""
        self._contexts = _Contexts()
        self._dictionaries.after_fork()

    # Choosing -----------------------------------------------------------------------------------------------

    def _blocks(self, parts: list[bytes | memoryview], itemsizes: Sequence[int]) -> "list[Block]":
        """Join runs of short parts, which compress better together; any other part is a block."""
        blocks: list[Block] = []
        run: list[bytes | memoryview] = []
        for part, item_size in zip(parts, map(_usable_item_size, itemsizes), strict=True):
            if len(part) < OWN_BLOCK_FROM_BYTES:
                run.append(part)
                continue
            if run:
                blocks.append(self._joined(run))
                run = []
            blocks.append(self._block(part, (len(part),), item_size))
        if run:
            blocks.append(self._joined(run))
        return blocks

    def _joined(self, run: list[bytes | memoryview]) -> "Block":
        return self._block(b"".join(run), tuple(map(len, run)), 1)

    def _block(self, data: bytes | memoryview, raw_lengths: tuple[int, ...], item_size: int) -> "Block":
        """Store one block as a formula that gives it, or compressed, or raw where that gains too little."""
        formula = self._formula(data, item_size) if self._codec is None else None
        if formula is not None and len(formula) <= FORMULA_SURE_BYTES:
            return FORMULA, 0, 1, raw_lengths, formula
        block = self._plain_block(data, raw_lengths, item_size)
        if formula is not None and len(formula) < len(memoryview(block[4])):
            return FORMULA, 0, 1, raw_lengths, formula
        return block

    def _formula(self, data: bytes | memoryview, item_size: int) -> bytes | None:
        """The formula of a block if there is one; none is looked for in what is short or a stream of many values."""
        if len(data) < FORMULA_FROM_BYTES:
            return None
        try:
            if item_size == 1 and len(data) < LARGE_FROM_BYTES:
                return _formula.find_flat(data)
            formula = _formula.find(data)
            return None if formula is None or self._is_too_much(len(data), len(formula)) else formula
        except MemoryError:
            self._tally.failed(FORMULA)
            return None

    def _is_too_much(self, raw_bytes: int, formula_bytes: int) -> bool:
        """Does a formula give more than may be believed?"""
        return self.formula_growth_max is not None and raw_bytes > self.formula_growth_max * formula_bytes

    def _plain_block(self, data: bytes | memoryview, raw_lengths: tuple[int, ...], item_size: int) -> "Block":
        """Compress one block, or keep it raw where that gains too little."""
        raw_bytes = len(data)
        if raw_bytes < COMPRESS_FROM_BYTES or self._codec == "raw":
            return RAW, 0, 1, raw_lengths, data
        if raw_bytes < OWN_BLOCK_FROM_BYTES or item_size == 1:
            item_size = 1
            if raw_bytes < LARGE_FROM_BYTES and self._codec != "lz4":
                return self._small_block(bytes(data), raw_lengths)
        codec, item_size = self._choose(data, item_size)
        if codec == RAW:
            return RAW, 0, 1, raw_lengths, data
        source = shuffle(data, item_size) if item_size > 1 else data
        payload = self._lz4(source) if codec == LZ4 else self._zstd(source)
        if len(payload) > RAW_ABOVE_SHARE * raw_bytes:
            return RAW, 0, 1, raw_lengths, data
        return codec, 0, item_size, raw_lengths, payload

    def _small_block(self, data: bytes, raw_lengths: tuple[int, ...]) -> "Block":
        """Compress with the trained dictionary; before there is one, with what has proved better."""
        dictionary = self._dictionaries.current
        if dictionary is None:
            dictionary_id = 0
            codec, payload = self._small_untrained(data)
        else:
            codec, dictionary_id = ZSTD_DICTIONARY, dictionary.id
            payload = self._zstd_trained(data, dictionary)
        self._dictionaries.observe(data, len(payload))
        if len(payload) > RAW_ABOVE_SHARE * len(data):
            return RAW, 0, 1, raw_lengths, data
        return codec, dictionary_id, 1, raw_lengths, payload

    def _small_untrained(self, data: bytes) -> tuple[int, bytes]:
        if self._codec == "zstd":
            return ZSTD, self._zstd(data)
        turn = self._small_turn
        self._small_turn = turn + 1
        if turn % SMALL_TRIAL_EVERY == 0:
            by_zstd, by_lz4 = self._zstd(data), self._lz4(data)
            # What LZ4 cannot shorten is stored raw.
            share = len(by_zstd) / min(len(by_lz4), len(data))
            known = self._small_zstd_share if turn else share
            self._small_zstd_share = known + (share - known) * SMALL_TRIAL_WEIGHT
            return (ZSTD, by_zstd) if len(by_zstd) < len(by_lz4) else (LZ4, by_lz4)
        if self._small_zstd_share <= SMALL_ZSTD_WINS_SHARE:
            return ZSTD, self._zstd(data)
        return LZ4, self._lz4(data)

    def _choose(self, data: bytes | memoryview, item_size: int) -> tuple[int, int]:
        """Return the codec and the item size to shuffle by (1: do not) for a block, judged by a sample."""
        fits = len(data) <= LZ4_BYTES_MAX
        named = ZSTD if self._codec == "zstd" else LZ4 if fits else RAW
        if self._codec is not None and item_size == 1:
            return named, item_size
        if item_size == 1 and _formula.is_runs(data):
            return ZSTD, 1  # as the sample would have it, for a tenth of the time
        sample = _sample(data, item_size)
        best = len(self._lz4(sample))
        if item_size > 1:
            shuffled = shuffle(sample, item_size)
            shuffled_bytes = len(self._lz4(shuffled))
            if shuffled_bytes < best:
                best, sample = shuffled_bytes, shuffled
            else:
                item_size = 1
        if self._codec is not None:
            return named, item_size
        if best <= LZ4_TINY_SHARE * len(sample):
            return ZSTD, item_size
        if best <= LZ4_GOOD_SHARE * len(sample) and fits:
            return LZ4, item_size
        by_zstd = len(self._zstd(sample))
        if by_zstd <= ZSTD_WINS_SHARE * best or not fits:
            return ZSTD, item_size
        return (LZ4 if best <= RAW_ABOVE_SHARE * len(sample) else RAW), item_size

    # Codecs -------------------------------------------------------------------------------------------------

    def _lz4(self, data: Bytes) -> bytes:
        try:
            payload: bytes = lz4.block.compress(data, store_size=False)
        except Exception as error:
            self._failed(LZ4, len(data), error)
            raise
        return payload

    def _zstd(self, data: Bytes) -> bytes:
        contexts = self._contexts
        is_large = len(data) >= KEEP_COMPRESSOR_BELOW_BYTES
        try:
            compressor = _spare_compressor() if is_large else contexts.plain
            if compressor is None:
                compressor = zstandard.ZstdCompressor(compression_params=PLAIN_PARAMETERS)
            payload = compressor.compress(data)
        except Exception as error:
            contexts.plain = None
            self._failed(ZSTD, len(data), error)
            raise
        if is_large:
            _spare_compressors.append(compressor)
        else:
            contexts.plain = compressor
        return payload

    def _zstd_trained(self, data: bytes, dictionary: EncodingDictionary) -> bytes:
        contexts = self._contexts
        try:
            trained = contexts.trained
            if trained is None or trained[0] != dictionary.id:
                contexts.trained = trained = (dictionary.id, dictionary.compressor())
            return trained[1].compress(data)
        except Exception as error:
            contexts.trained = None
            self._failed(ZSTD_DICTIONARY, len(data), error)
            raise

    def _failed(self, codec: int, raw_bytes: int, error: Exception) -> None:
        """Count a failure, and raise CodecError for the library's own error; a MemoryError is left alone."""
        self._tally.failed(codec)
        if not isinstance(error, MemoryError):
            raise CodecError(f"codec {CODEC_NAMES[codec]} failed on {raw_bytes} bytes: {error}") from error

    def _decompress(
        self, codec: int, dictionary_id: int, payload: bytes | memoryview, raw_bytes: int
    ) -> Bytes:
        if codec == RAW:
            return payload
        if codec == FORMULA:
            if self._is_too_much(raw_bytes, len(payload)):
                raise CorruptFrameError(f"{raw_bytes} bytes from a formula of {len(payload)} need trust to be believed")
            return _formula.grow(payload, raw_bytes)
        data: bytes
        try:
            if codec == LZ4:
                data = lz4.block.decompress(payload, uncompressed_size=raw_bytes)
            else:
                known = self._contexts.decompressors.get(dictionary_id)
                decompressor = known if known is not None else self._decompressor(dictionary_id)
                data = decompressor.decompress(payload, 0, False, False)  # by position: keywords cost 0.16 us
        except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
            raise CorruptFrameError(f"the frame is damaged: {CODEC_NAMES[codec]}: {error}") from error
        if len(data) != raw_bytes:
            raise CorruptFrameError(f"the frame is damaged: {len(data)} bytes where {raw_bytes} are declared")
        return data

    def _decompressor(self, dictionary_id: int) -> zstandard.ZstdDecompressor:
        """Make this thread's decompressor for a dictionary (0: none)."""
        dictionary = self._dictionaries.find(dictionary_id)
        if dictionary is None and dictionary_id != 0:
            raise CorruptFrameError(f"the frame needs dictionary {dictionary_id}, unknown to this container")
        decompressors = self._contexts.decompressors
        if len(decompressors) >= DECOMPRESSORS_MAX:
            decompressors.clear()
        decompressors[dictionary_id] = decompressor = zstd_decompressor(dictionary)
        return decompressor


def _spare_compressor() -> zstandard.ZstdCompressor | None:
    """The compressor for large blocks that no thread is using, if there is one; the caller has it alone."""
    try:
        return _spare_compressors.pop()
    except IndexError:
        return None


def _as_bytes(part: "Buffer", index: int) -> bytes | memoryview:
    """Return the memory of a part as flat bytes, without a copy."""
    if type(part) is bytes:
        return part
    try:
        return PickleBuffer(part).raw()
    except BufferError as error:
        raise ValueError(f"part {index} is not contiguous in memory") from error


def _usable_item_size(item_size: int) -> int:
    """Return the item size to shuffle by, 1 where items are too long for that."""
    if item_size < 1:
        raise ValueError(f"item size {item_size} is not at least 1")
    return item_size if item_size <= ITEM_SIZE_MAX else 1


def _sample(data: bytes | memoryview, item_size: int) -> bytes | memoryview:
    """Return about 4 KiB of data in pieces from start to end, each of whole items."""
    if len(data) <= SAMPLE_BYTES:
        return data
    piece = max(SAMPLE_BYTES // SAMPLE_PIECES // item_size, 1) * item_size
    stride = (len(data) - piece) // (SAMPLE_PIECES - 1) // item_size * item_size
    return b"".join(data[start : start + piece] for start in range(0, SAMPLE_PIECES * stride, stride))
