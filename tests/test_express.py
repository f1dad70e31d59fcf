"""The express way through the codec does what the general way does, or declines."""

import pickle
import random
import threading

import pytest
from frame_records import record

from spectral_alloc import _frame
from spectral_alloc._express import OTHER_WAY, Express
from spectral_alloc._graph_stream import write_graph
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.frame import FrameCodec
from spectral_alloc.serializer import loads

VALUES = [pickle.loads(record(number)) for number in range(700)]


@pytest.fixture(scope="module")
def trained() -> FrameCodec:
    """A codec with a dictionary for graph streams of records."""
    codec = FrameCodec()
    for value in VALUES:
        codec.encode([write_graph(value)], [1])
    assert codec.train()
    return codec


def test_both_ways_make_the_same_frames_and_values(trained: FrameCodec) -> None:
    """Frames are equal byte by byte, and each way reads what either made; both count and sample alike."""
    before = trained.stats()["zstd_dictionary"]["frames"]
    for value in VALUES[:100]:
        stream = write_graph(value)
        frame = trained.express.encode(stream)
        assert frame == trained.encode([stream], [1])
        assert trained.express.value(frame) == value == loads(trained.decode(frame))
    assert trained.stats()["zstd_dictionary"]["frames"] == before + 200


def test_what_does_not_compress_is_stored_raw(trained: FrameCodec) -> None:
    """Random bytes become a raw frame, the same as the general way's."""
    stream = write_graph(random.Random(1).randbytes(900))
    frame = trained.express.encode(stream)
    assert _frame.parse(frame)[0][0] == _frame.RAW
    assert frame == trained.encode([stream], [1])
    assert trained.express.value(frame) == loads([stream])


def test_what_is_short_is_stored_raw(trained: FrameCodec) -> None:
    """Below 64 bytes no dictionary is asked for, and codec="raw" stores all raw; the general way does the same."""
    for codec in (trained, FrameCodec(), FrameCodec("lz4")):
        assert codec.express.encode(b"short") == codec.encode([b"short"], [1])
    raw = FrameCodec("raw")
    raw.express.takes_all_raw = True
    stream = write_graph(VALUES[0])
    assert raw.express.encode(stream) == raw.encode([stream], [1])


def test_everything_else_is_declined(trained: FrameCodec) -> None:
    """No dictionary yet, long streams, other codecs, several parts, pickles, shuffled arrays."""
    assert FrameCodec().express.encode(write_graph(VALUES[0])) is None
    assert trained.express.encode(bytes(4096)) is None
    numbers = b"".join(number.to_bytes(8, "little") for number in range(1000))
    frames = [
        FrameCodec("lz4").encode([b"spectral " * 30], [1]),
        trained.encode([b"one", b"two"], [1, 1]),
        trained.encode([numbers], [8]),
        trained.encode([pickle.dumps(VALUES[0], 5)], [1]),
        trained.encode([pickle.dumps([], 5)], [1]),
        trained.encode([write_graph(list(range(900_000)))], [1]),
        memoryview(trained.encode([write_graph(VALUES[0])], [1])),
        b"",
    ]
    for frame in frames:
        assert trained.express.value(frame) is OTHER_WAY


def test_a_frame_of_an_unknown_dictionary_is_declined(trained: FrameCodec) -> None:
    """The general way then says which one is missing."""
    frame = trained.express.encode(write_graph(VALUES[0]))
    stranger = FrameCodec()
    assert stranger.express.value(frame) is OTHER_WAY
    with pytest.raises(CorruptFrameError, match="dictionary 1"):
        stranger.decode(frame)


def test_every_damage_is_declined(trained: FrameCodec) -> None:
    """Each flipped bit, each truncation and extension goes the general way, which raises."""
    for stream in (write_graph(VALUES[0]), write_graph([1, 2, 3])):
        frame = bytearray(trained.encode([stream], [1]))
        for position in range(len(frame)):
            for bit in range(8):
                frame[position] ^= 1 << bit
                assert trained.express.value(bytes(frame)) is OTHER_WAY
                frame[position] ^= 1 << bit
            assert trained.express.value(bytes(frame[:position])) is OTHER_WAY
        assert trained.express.value(bytes(frame) + b"\0") is OTHER_WAY
        assert trained.express.value(bytes(frame)) == loads([stream])


def test_crafted_heads_are_declined() -> None:
    """With a right checksum too: lengths that do not fit, dictionary 0, sizes that the payload does not state."""
    express = FrameCodec().express
    for body in (
        b"\x01\x00\x05\x04" + bytes(4),
        b"\x01\x00\x04\x05" + bytes(4),
        b"\x01\x03\x00\x04\x04" + bytes(4),
        b"\x01\x02\x04\x04" + bytes(4),
        b"\x01\x02\x04\x04\x20\x05\x00\x00",
        b"\x01\x02\xff\xff\xff\xff\x7f\x04" + bytes(4),
        b"\x01\x00\xff\xff\xff",
        b"\x01\x01\x04\x04" + bytes(4),
        b"\x01\x80\x02\x04\x04" + bytes(4),
        b"\x02\x00\x02\x04\x0f\x02" + bytes(4),
    ):
        head = bytes([_frame.FRAME_VERSION])
        checksum = _frame.crc32c(body, _frame.crc32c(head))
        assert express.value(head + checksum.to_bytes(4, "little") + body) is OTHER_WAY


def test_threads_share_one_express_way(trained: FrameCodec) -> None:
    """Contexts are used by one call at a time: four threads encode and decode at once, and all values are right."""
    wrong: list[object] = []

    def work(start: int) -> None:
        for _ in range(5):
            for value in VALUES[start::4]:
                frame = trained.express.encode(write_graph(value))
                if trained.express.value(frame) != value:
                    wrong.append(value)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_failing_library_is_left_to_the_general_way(
    trained: FrameCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception of the compressor declines, and nothing is counted."""

    class Broken:
        id = 1

        def compressor(self) -> None:
            raise RuntimeError("broken")

    before = trained.stats()
    broken = Express(trained._dictionaries, trained._tally)
    with monkeypatch.context() as patch:
        patch.setattr(trained._dictionaries, "current", Broken())
        assert broken.encode(write_graph(VALUES[0])) is None
    assert trained.stats() == before
