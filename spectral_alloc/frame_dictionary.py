"""Zstandard dictionaries trained on a container's own small values: samples, training, and drift."""

import threading

import zstandard

from spectral_alloc._frame_stats import DriftGauge, SampleReservoir

__all__ = ["DICTIONARIES_MAX", "FrameDictionaries", "zstd_decompressor", "zstd_parameters"]

ZSTD_LEVEL = 1

#: A frame has one byte for the number of its dictionary.
DICTIONARY_ID_MAX = 255

#: Old dictionaries stay for the frames that name them, so their number bounds the memory they take.
DICTIONARIES_MAX = 16
DICTIONARY_BYTES_MIN = 4096
DICTIONARY_BYTES_MAX = 65536
#: Up to this share of the samples a larger dictionary made held-out records smaller.
SAMPLE_BYTES_PER_DICTIONARY_BYTE = 16

SAMPLES_MAX = 2000
SAMPLE_BYTES_MAX = 1 << 20
#: A dictionary from fewer bytes would be shorter than the shortest.
SAMPLE_BYTES_MIN = SAMPLE_BYTES_PER_DICTIONARY_BYTE * DICTIONARY_BYTES_MIN
#: Training is due after so many samples were offered: soon, and once more when the run is long.
TRAIN_AT_OFFERED = (512, 8192)
HOLDOUT_EVERY = 8
#: A new dictionary must make the held-out samples this much smaller than what it would replace.
WORTHWHILE_SHARE = 0.95

DRIFT_SHARE = 0.8
#: Weight of one frame in the moving average, and the number of frames before it is trusted.
AVERAGE_WEIGHT = 1 / 256
AVERAGE_FRAMES_MIN = 256

# Parameters of the dictionary builder; its own search takes four times as long for the same ratio.
COVER_SEGMENT_BYTES = 200
COVER_MATCH_BYTES = 8
TABLE_ENTRY_BYTES = 4
TABLE_OVERHEAD_BYTES = 15 * 1024
DECODER_TABLE_BYTES = 27 * 1024


def table_bits(dictionary_bytes: int) -> int:
    """Return log2 of the entries of the compressor's hash table: one for each byte of the dictionary.

    Level 1 alone takes 13 bits, in which a dictionary of 64 KiB overwrites itself: ratio 1.65 instead of 1.84
    on 750-byte records, at the same speed.
    """
    return max(13, (dictionary_bytes - 1).bit_length())


def zstd_parameters(dictionary_bytes: int = 0) -> zstandard.ZstdCompressionParameters:
    """Return the settings of all zstd payloads: no magic number, checksum or id, which the frame has already.

    The content size is written: one byte more, and the decompressor allocates exactly that and no window.
    """
    tables = {"hash_log": table_bits(dictionary_bytes)} if dictionary_bytes else {}
    return zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=1,
        write_checksum=0,
        write_dict_id=0,
        **tables,
    )


def zstd_decompressor(dictionary: zstandard.ZstdCompressionDict | None) -> zstandard.ZstdDecompressor:
    """Return a decompressor for payloads written with :func:`zstd_parameters`; one thread may use it at a
    time."""
    return zstandard.ZstdDecompressor(dict_data=dictionary, format=zstandard.FORMAT_ZSTD1_MAGICLESS)


class EncodingDictionary:
    """One trained dictionary, digested for compression; immutable, so threads share it."""

    __slots__ = ("content_bytes", "digest", "id", "parameters")

    def __init__(self, dictionary_id: int, content: bytes) -> None:
        self.id = dictionary_id
        self.content_bytes = len(content)
        self.parameters = zstd_parameters(len(content))
        self.digest = zstandard.ZstdCompressionDict(content)
        self.digest.precompute_compress(compression_params=self.parameters)

    @property
    def resident_bytes(self) -> int:
        """Return the bytes of the content and of its hash table."""
        table_bytes = TABLE_ENTRY_BYTES << table_bits(self.content_bytes)
        return self.content_bytes + table_bytes + TABLE_OVERHEAD_BYTES

    def compressor(self) -> zstandard.ZstdCompressor:
        """Return a new compressor; one thread may use it at a time."""
        return zstandard.ZstdCompressor(dict_data=self.digest, compression_params=self.parameters)


class FrameDictionaries:
    """The dictionaries of one container, and the samples from which the next one is trained.

    Parameters: sample_limit_bytes, the most memory that samples may take (below 64 KiB: never train).
    Cost: :meth:`observe` takes under 0.5 us; :meth:`train` some 30 ms with the GIL released.
    Threads: any method from any thread; ``train`` belongs on a background thread, a second one at the same
    time returns at once. No lock is held during ``observe``: its averages may lose a sample to a race, which
    is harmless.

    >>> dictionaries = FrameDictionaries()
    >>> for number in range(1000):
    ...     data = b"name=somebody;surname=someone;number=%d;colour=blue" % (number * 7919) * 2
    ...     dictionaries.observe(data, len(data))
    >>> dictionaries.train_due, dictionaries.train(), dictionaries.current.id
    (True, True, 1)
    """

    def __init__(self, sample_limit_bytes: int = SAMPLE_BYTES_MAX) -> None:
        self._sample_limit_bytes = min(sample_limit_bytes, SAMPLE_BYTES_MAX)
        self._decoding: dict[int, zstandard.ZstdCompressionDict] = {}
        self._decoding_bytes = 0
        self._means: dict[int, tuple[float, float]] = {}
        self._last_id = 0
        self._training = threading.Lock()
        #: What new frames are compressed with; None before the first training that was worth while.
        self.current: EncodingDictionary | None = None
        self._gauge = DriftGauge(AVERAGE_WEIGHT, AVERAGE_FRAMES_MIN)
        self._collect()

    def _collect(self) -> None:
        """Start a fresh sample, unless the limits say that it would be in vain."""
        self._attempt = 0
        has_room = len(self._decoding) < DICTIONARIES_MAX and self._last_id < DICTIONARY_ID_MAX
        wanted = self._sample_limit_bytes >= SAMPLE_BYTES_MIN and has_room
        self._reservoir = SampleReservoir(SAMPLES_MAX, self._sample_limit_bytes) if wanted else None

    def find(self, dictionary_id: int) -> zstandard.ZstdCompressionDict | None:
        """Return the dictionary for decompression, or None if this container never had it."""
        return self._decoding.get(dictionary_id)

    @property
    def ids(self) -> tuple[int, ...]:
        """The numbers of all dictionaries that frames may name."""
        return tuple(self._decoding)

    def content_of(self, dictionary_id: int) -> tuple[bytes, float, float]:
        """A dictionary to be kept: its content, and the mean raw and stored bytes of the values it was judged by."""
        return self._decoding[dictionary_id].as_bytes(), *self._means[dictionary_id]

    def adopt(self, dictionary_id: int, content: bytes, raw_mean: float, stored_mean: float) -> None:
        """Make a dictionary known that was kept, and use it from now on; the same for one after the other.

        Raises ValueError for one that is none. Cost: some 0.5 ms. Threads: call it before others know the container.
        """
        try:
            candidate = EncodingDictionary(dictionary_id, content)
        except (zstandard.ZstdError, MemoryError) as error:
            raise ValueError(f"dictionary {dictionary_id} cannot be used: {error}") from error
        self._publish(candidate, zstandard.ZstdCompressionDict(content), (raw_mean, stored_mean))
        self.current, self._reservoir = candidate, None
        self._gauge.restart(raw_mean, stored_mean, DRIFT_SHARE * raw_mean / stored_mean)

    def reserve(self, dictionary_id: int) -> None:
        """Give this number to no other dictionary: frames that need the one it had must not be read with another."""
        self._last_id = max(self._last_id, dictionary_id)

    def _publish(
        self, candidate: EncodingDictionary, dictionary: zstandard.ZstdCompressionDict, means: tuple[float, float]
    ) -> None:
        """Make a dictionary known for decompression, before it is `current`: no frame names one that is not."""
        self.reserve(candidate.id)
        self._means[candidate.id] = means
        self._decoding = {**self._decoding, candidate.id: dictionary}
        self._decoding_bytes += candidate.content_bytes

    def observe(self, data: bytes, stored_bytes: int) -> None:
        """Take note of one small value and of the bytes it was compressed to."""
        reservoir = self._reservoir
        if reservoir is not None:
            reservoir.offer(data)
        if self.current is not None and self._gauge.note(len(data), stored_bytes):
            self._collect()

    @property
    def drifted(self) -> bool:
        """Whether values have become unlike those of the last training, so that another one is being
        prepared."""
        return self._gauge.drifted

    @property
    def train_due(self) -> bool:
        """Whether there are samples enough for :meth:`train`."""
        reservoir = self._reservoir
        return (
            reservoir is not None
            and reservoir.offered_count >= TRAIN_AT_OFFERED[self._attempt]
            and reservoir.byte_count >= min(SAMPLE_BYTES_MIN, self._sample_limit_bytes // 2)
        )

    @property
    def resident_bytes(self) -> int:
        """The bytes that dictionaries and samples take, digests included."""
        current, reservoir = self.current, self._reservoir
        total = self._decoding_bytes + len(self._decoding) * DECODER_TABLE_BYTES
        total += current.resident_bytes if current is not None else 0
        return total + (reservoir.resident_bytes if reservoir is not None else 0)

    def train(self) -> bool:
        """Train a dictionary on the samples, and use it from now on if it is worth while; returns whether it
        is.

        Does nothing unless :attr:`train_due`. A sample whose training was not worth while is dropped after
        the last of the attempts, and only drift starts another.
        """
        if not self._training.acquire(blocking=False):
            return False
        try:
            reservoir = self._reservoir
            if reservoir is None or not self.train_due:
                return False
            return self._train(reservoir)
        finally:
            self._training.release()

    def _train(self, reservoir: SampleReservoir) -> bool:
        samples = reservoir.samples()
        if self._attempt + 1 < len(TRAIN_AT_OFFERED):
            self._attempt += 1
        else:
            self._reservoir = None
        held_out = samples[::HOLDOUT_EVERY]
        del samples[::HOLDOUT_EVERY]
        old = self.current
        best_bytes = _compressed_bytes(held_out, old)
        candidate = self._candidate(samples)
        accepted = False
        if candidate is not None:
            candidate_bytes = _compressed_bytes(held_out, candidate)
            decoding = self._decoding_of(held_out, candidate)
            if candidate_bytes <= WORTHWHILE_SHARE * best_bytes and decoding is not None:
                best_bytes, accepted = candidate_bytes, True
                means = sum(map(len, held_out)) / len(held_out), candidate_bytes / len(held_out)
                self._publish(candidate, decoding, means)
                self.current = candidate
        if len(self._decoding) >= DICTIONARIES_MAX:
            self._reservoir = None
        raw_bytes = sum(map(len, held_out))
        self._gauge.restart(
            raw_bytes / len(held_out), best_bytes / len(held_out), DRIFT_SHARE * raw_bytes / best_bytes
        )
        return accepted

    def _candidate(self, samples: list[bytes]) -> EncodingDictionary | None:
        """Train on the samples; None where the builder finds nothing in them."""
        share = sum(map(len, samples)) // SAMPLE_BYTES_PER_DICTIONARY_BYTE
        size = max(DICTIONARY_BYTES_MIN, min(DICTIONARY_BYTES_MAX, share))
        try:
            trained = zstandard.train_dictionary(
                size, [*samples], k=COVER_SEGMENT_BYTES, d=COVER_MATCH_BYTES
            )
        except zstandard.ZstdError:
            return None
        return EncodingDictionary(self._last_id + 1, trained.as_bytes())

    def _decoding_of(
        self, held_out: list[bytes], candidate: EncodingDictionary
    ) -> zstandard.ZstdCompressionDict | None:
        """The candidate for decompression, if it gives every held-out sample back.

        The first use also builds its decoding table, before threads share it.
        """
        dictionary = zstandard.ZstdCompressionDict(candidate.digest.as_bytes())
        compressor, decompressor = candidate.compressor(), zstd_decompressor(dictionary)
        is_right = all(decompressor.decompress(compressor.compress(data)) == data for data in held_out)
        return dictionary if is_right else None

    def after_fork(self) -> None:
        """Make the child's copy usable: a training of the parent, which does not go on here, is forgotten."""
        self._training = threading.Lock()


def _compressed_bytes(samples: list[bytes], dictionary: EncodingDictionary | None) -> int:
    """Return what the samples take when each is compressed on its own, or stored raw where that is
    shorter."""
    if dictionary is not None:
        compressor = dictionary.compressor()
    else:
        compressor = zstandard.ZstdCompressor(compression_params=zstd_parameters())
    return sum(min(len(data), len(compressor.compress(data))) for data in samples)
