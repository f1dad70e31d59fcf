"""Formulas: what is found gives the block back bit for bit, and what the note promises is found."""

import hashlib
import json
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import formula_twin
import numpy
import pytest
from frame_records import contents, record, trained_codec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spectral_alloc import GenerativeSpace, SpectralMemory, ThermalDict, _formula, _frame, formula
from spectral_alloc._express import FORMULA_SURE_BYTES
from spectral_alloc._graph_stream import write_graph
from spectral_alloc.frame import FrameCodec
from spectral_alloc.permutation import Permutation
from spectral_alloc.serializer import dumps, loads

COUNT = 131_072  # items of 8 bytes: 1 MiB
SMALL_COUNT = 600
VECTORS = Path(__file__).parent / "data" / "formula_vectors_1.json"


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    """No test finds what another one filled."""
    _formula.forget()
    yield
    _formula.forget()


def axes(side: int, count: int) -> list[numpy.ndarray]:
    """Coordinates of a grid."""
    return numpy.meshgrid(*[numpy.arange(side) * 0.5 + number for number in range(count)], indexing="ij")


def edited(block: numpy.ndarray, *places: int) -> numpy.ndarray:
    """A copy with other items at some places."""
    copy = block.copy()
    copy[list(places)] = 77
    return copy


#: What must be found, for a number of items.
REGULAR: dict[str, Callable[[int], numpy.ndarray]] = {
    "zeros": numpy.zeros,
    "constant": lambda n: numpy.full(n, numpy.pi),
    "negative zero": lambda n: numpy.full(n, -0.0),
    "nan with a payload": lambda n: numpy.full(n, 0x7FF8_0000_DEAD_BEEF).view("f8"),
    "arange": numpy.arange,
    "7 i + 3": lambda n: numpy.arange(n) * 7 + 3,
    "timestamps": lambda n: 1_700_000_000_000_000_000 + numpy.arange(n) * 1_000_000,
    "quadratic": lambda n: 3 * numpy.arange(n) ** 2 - 5 * numpy.arange(n) + 11,
    "cubic int32": lambda n: (numpy.arange(n) ** 3).astype("i4"),
    "quartic uint64 that overflows": lambda n: numpy.arange(n, dtype="u8") ** 4 * 0x9E37_79B9_7F4A_7C15,
    "counter of a byte": lambda n: numpy.arange(n).astype("u1"),
    "quadratic int16 big-endian": lambda n: (5 * numpy.arange(n) ** 2 + 1).astype(">i2"),
    "arange big-endian": lambda n: numpy.arange(n, dtype=">i8") * 1000,
    "arange of floats": lambda n: numpy.arange(0.5, 0.5 + 0.3 * n, 0.3)[:n],
    "linspace": lambda n: numpy.linspace(-3.7, numpy.pi, n),
    "linspace without its end": lambda n: numpy.linspace(0.3, 17.1, n, endpoint=False),
    "0.1 i": lambda n: numpy.arange(n) * 0.1,
    "-0.1 i": lambda n: numpy.arange(n) * -0.1,
    "5 + 0.1 i": lambda n: 5 + numpy.arange(n) * 0.1,
    "float32 0.1 i": lambda n: numpy.arange(n, dtype="f4") * numpy.float32(0.1),
    "float32 linspace": lambda n: numpy.linspace(0, 1, n, dtype="f4"),
    "float32 of a double series": lambda n: (numpy.arange(n) * 0.1).astype("f4"),
    "float64 big-endian": lambda n: numpy.linspace(0, 1, n).astype(">f8"),
    "grid, first axis": lambda n: axes(int(n**0.5), 2)[0],
    "grid, second axis": lambda n: axes(int(n**0.5), 2)[1],
    "grid, middle of three axes": lambda n: axes(int(n ** (1 / 3)), 3)[1],
    "eye": lambda n: numpy.eye(int(n**0.5)),
    "eye of booleans": lambda n: numpy.eye(int(n**0.5), dtype=bool),
    "repeat": lambda n: numpy.repeat(numpy.arange(n // 24), 24),
    "bytes three times over": lambda n: numpy.frombuffer(b"abc" * n, "u1"),
    "an edit": lambda n: edited(numpy.arange(n) * 7, n // 3),
    "an edit of the first": lambda n: edited(numpy.arange(n) * 7, 0),
    "an edit of zeros": lambda n: edited(numpy.zeros(n), n // 2),
    "default_rng": lambda n: numpy.random.default_rng(0).random(n),
    "default_rng float32": lambda n: numpy.random.default_rng(65_534).random(n, dtype="f4"),
    "RandomState": lambda n: numpy.random.RandomState(42).rand(n),
    "tile of default_rng": lambda n: numpy.tile(numpy.random.default_rng(5).random(73), n // 73 + 1)[:n],
    "space": lambda n: GenerativeSpace(1337)[1_000 : 1_000 + n],
    "space backwards": lambda n: GenerativeSpace(1337)[5_000_000 : 5_000_000 - n : -1],
    "space of words": lambda n: GenerativeSpace("ada", values="uint64")[2**63 : 2**63 + 3 * n : 3],
    "space of float32": lambda n: GenerativeSpace(b"key", values="float32")[77 : 77 + n],
    "space of normal values": lambda n: GenerativeSpace(5, values="normal")[77 : 77 + n],
    "space of dice": lambda n: GenerativeSpace(5, values=range(1, 7))[2**64 - n :],
    "space with edits": lambda n: edited(GenerativeSpace(9)[5 : 5 + n], n // 2),
    "permutation": lambda n: Permutation(n, seed=3)[:],
    "permutation as int32": lambda n: Permutation(n, seed=3)[:].astype("i4"),
}
#: Those that only a long block shows.
LONG = {
    "default_rng words": lambda n: numpy.random.default_rng(9).integers(0, 2**64, n, dtype="u8"),
    "default_rng bytes": lambda n: numpy.frombuffer(numpy.random.default_rng(9).bytes(8 * n), "u1"),
    "RandomState words": lambda n: numpy.random.RandomState(7).randint(0, 2**32, n, dtype="u4"),
    "RandomState bytes": lambda n: numpy.frombuffer(numpy.random.RandomState(7).bytes(8 * n), "u1"),
}


def memory_of(array: numpy.ndarray) -> bytes:
    """The bytes of an array."""
    return numpy.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("name", [*REGULAR, *LONG])
def test_a_mebibyte_takes_64_bytes(name: str) -> None:
    """Blocks where a formula can win take at most 64 bytes for 1 MiB, and come back."""
    block = memory_of((REGULAR | LONG)[name](COUNT))
    found = formula.find(block)
    assert found is not None
    assert len(found) <= FORMULA_SURE_BYTES
    assert formula.regrow(found, len(block)) == block


@pytest.mark.parametrize("name", REGULAR)
def test_the_twin_regrows_what_is_found(name: str) -> None:
    """A decoder in plain Python gives the same bytes for the same formula."""
    block = memory_of(REGULAR[name](SMALL_COUNT))
    found = formula.find(block)
    assert found is not None
    assert formula_twin.regrow(found, len(block)) == formula.regrow(found, len(block)) == block


def test_the_format_is_frozen() -> None:
    """Formulas that were written once still give the same bytes, in C and in the twin."""
    vectors = json.loads(VECTORS.read_text())
    assert {vector["name"] for vector in vectors} >= set(REGULAR)
    for vector in vectors:
        stored, raw_bytes = bytes.fromhex(vector["formula"]), vector["raw_bytes"]
        block = formula.regrow(stored, raw_bytes)
        assert hashlib.sha256(block).hexdigest() == vector["sha256"], vector["name"]
        assert formula_twin.regrow(stored, raw_bytes) == block


ARRAYS = hnp.arrays(
    st.one_of(
        hnp.integer_dtypes(endianness="?"), hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
        hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)), hnp.boolean_dtypes(), hnp.byte_string_dtypes(),
        hnp.datetime64_dtypes(),
    ),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=40),
)  # fmt: skip
VIEWS: list[Callable[[numpy.ndarray], numpy.ndarray]] = [
    lambda array: array, lambda array: array[::2], lambda array: array[::-1], lambda array: array.T,
    lambda array: numpy.asfortranarray(array), lambda array: numpy.tile(array, 3), lambda array: numpy.repeat(array, 5),
]  # fmt: skip


@given(array=ARRAYS, view=st.sampled_from(VIEWS), writable=st.booleans())
def test_any_array_comes_back(
    array: numpy.ndarray, view: Callable[[numpy.ndarray], numpy.ndarray], writable: bool
) -> None:
    """Through serialiser and codec, arrays of any type, order, strides and length are the same to the last bit."""
    shown = view(array).copy(order="K")
    shown.setflags(write=writable)
    parts, item_sizes = dumps(shown)
    codec = FrameCodec()
    back = loads(codec.decode(codec.encode(parts, item_sizes)))
    assert (back.dtype, back.shape, back.strides) == (shown.dtype, shown.shape, shown.strides)
    assert back.flags.writeable == writable
    assert memory_of(back) == memory_of(shown)


@st.composite
def nearly_regular(draw: st.DrawFn) -> bytes:
    """A block that follows a formula, but for some bytes."""
    block = bytearray(memory_of(REGULAR[draw(st.sampled_from(sorted(REGULAR)))](draw(st.integers(24, SMALL_COUNT)))))
    for _ in range(draw(st.integers(0, 4))):
        block[draw(st.integers(0, len(block) - 1))] ^= draw(st.integers(1, 255))
    cut = draw(st.integers(0, 9))
    return bytes(block[draw(st.integers(0, 9)) : len(block) - cut])


@given(block=nearly_regular(), kind=st.sampled_from([bytes, bytearray, list]))
def test_a_byte_off_the_formula_is_stored_right(block: bytes, kind: type) -> None:
    """Whatever bytes differ, whatever is cut off, and whatever stands around it: the block comes back."""
    found = formula.find(block)
    assert found is None or formula.regrow(found, len(block)) == block
    parts, item_sizes = dumps(kind(block))
    codec = FrameCodec()
    assert loads(codec.decode(codec.encode(parts, item_sizes))) == kind(block)


FRAMED = b"\x80\x05\x95" + bytes(8) + b"X"
HEADS = [b"\xb1\x0c", b"\xb1\x15", b"\xb1\x0a", b"\xd5b", b"\x80\x05B", FRAMED, b"\x80\x04\x96"]


@given(
    head=st.sampled_from(HEADS),
    more=st.binary(max_size=10),
    length=st.integers(0, 300),
    size=st.integers(5_000, 9_000),
    item=st.integers(0, 9),
)
def test_what_looks_like_a_stream_comes_back(head: bytes, more: bytes, length: int, size: int, item: int) -> None:
    """A block that begins as a stream does, with a length that is right or not, comes back whole."""
    lengths = [bytes([size % 128 | 128, size // 128]), size.to_bytes(4, "little"), bytes([length % 256]), more]
    for told in lengths:
        block = head + told + bytes([item]) * size + more
        found = formula.find(block)
        assert found is None or formula.regrow(found, len(block)) == block


@given(st.binary(max_size=2000), st.integers(1, 40))
def test_any_bytes_come_back(piece: bytes, times: int) -> None:
    """Random bytes, alone and repeated, come back, and no frame is longer than the best plain codec's by 32 bytes."""
    block = piece * times
    sizes = {}
    for name in (None, "raw", "lz4", "zstd"):
        codec = FrameCodec(name)
        frame = codec.encode([block], [1])
        assert contents(codec.decode(frame)) == [block]
        sizes[name] = len(frame)
    assert sizes[None] <= min(sizes["lz4"], sizes["zstd"]) + 32 or sizes[None] <= len(block) * 0.7


@pytest.mark.parametrize("make", [bytes, bytearray, pickle.dumps, lambda data: write_graph(data, False)], ids=str)
@pytest.mark.parametrize("size", [512, 3_000, 100_000])
def test_bytes_and_their_streams_are_found(make: Callable[[bytes], bytes], size: int) -> None:
    """The head and tail that a stream or pickle puts around one flat value do not hide it."""
    block = make(GenerativeSpace(2, values="uint64")[10**6 : 10**6 + size].tobytes())
    found = formula.find(block)
    assert found is not None
    assert len(found) <= FORMULA_SURE_BYTES
    assert formula.regrow(found, len(block)) == bytes(block)


@pytest.mark.parametrize("level", [8, 100, 400, 5_000])
def test_a_tile_that_begins_level_is_found(level: int) -> None:
    """A period that begins with many equal items is stored once, whichever item it is that shows it."""
    period = numpy.repeat([0.0, 1.0, 5.0, 2.0], [level, 9, 1, 20])
    block = numpy.tile(period, 12).tobytes()
    found = formula.find(block)
    assert found is not None
    assert len(found) < max(period.nbytes, 400) + 20
    assert formula.regrow(found, len(block)) == block


@pytest.mark.parametrize("diagonals", [{-1: -1.0, 0: 2.0, 1: -1.0}, {0: 1.0, 2: 4.0}, {100: 1.0}], ids=str)
def test_few_diagonals_of_a_large_matrix_are_found(diagonals: dict[int, float]) -> None:
    """A long period that is level but for few items is found, even where the matrix does not begin with one."""
    block = sum(numpy.diag(numpy.full(1000 - abs(k), value), k) for k, value in diagonals.items()).tobytes()
    found = formula.find(block[: 1 << 20])
    assert found is not None
    assert len(found) < 100
    assert formula.regrow(found, 1 << 20) == block[: 1 << 20]


def test_blocks_of_runs_are_compressed_without_a_sample() -> None:
    """Masks and other blocks of little else than runs are told from the rest, and take what zstd makes of them."""
    mask, noise = numpy.triu(numpy.ones((1000, 1000), "u1")).tobytes(), random.Random(3).randbytes(1 << 16)
    assert _formula.is_runs(mask)
    assert _formula.is_runs(bytes(1 << 16))
    for other in (noise, noise[:1000] * 60, numpy.arange(5000).tobytes(), bytes(100), b""):
        assert not _formula.is_runs(other)
    frame = FrameCodec().encode([mask], [1])
    assert formula.find(mask) is None
    assert _frame.parse(frame)[0][0] == _frame.ZSTD
    assert FrameCodec().decode(frame)[0] == mask


def test_noise_is_not_found() -> None:
    """Random bytes, normal values, sines and texts have no formula."""
    draw = numpy.random.default_rng(10**9)
    for block in (
        draw.bytes(1 << 20),
        draw.random(COUNT),
        draw.random(COUNT, dtype="f4"),
        draw.normal(size=COUNT),
        draw.integers(0, 100, COUNT),
        numpy.sin(numpy.arange(COUNT) * 0.37),
        record(1) * 1,
    ):
        assert formula.find(block) is None


def test_hints_find_more() -> None:
    """Seeds beyond the small ones, generators in the middle of their stream, spaces and permutations, when hinted."""
    middle = numpy.random.default_rng(10**9)
    middle.random(17)
    formula.hint(10**12, 2**32 - 1, middle, GenerativeSpace("far", values="normal"), Permutation(5_000, seed="far"))
    for block in (
        numpy.random.default_rng(10**12).random(1_000),
        numpy.random.RandomState(2**32 - 1).rand(1_000),
        middle.random(1_000),
        Permutation(5_000, seed="far")[numpy.arange(5_000)].astype("i4"),
        GenerativeSpace("far", values="normal").gather(range(1_000)),
        GenerativeSpace(10**12, values="uint64").gather(range(10**15, 10**15 + 1_000)),
    ):
        assert len(formula.find(block) or bytes(1_000)) <= FORMULA_SURE_BYTES


def test_a_wrong_hint_is_refused_whole() -> None:
    """Other types and negative seeds raise, and none of the sources counts."""
    wrongs = ((1.5, TypeError), (True, TypeError), (-1, ValueError), (numpy.random.RandomState(1), TypeError))
    for wrong, error in wrongs:
        with pytest.raises(error):
            formula.hint(10**12, wrong)
        assert _formula.known_counts() == (0, 0)


def test_draws_that_follow_are_found() -> None:
    """The arrays that a program draws one after another are found in this order, of each generator and form."""
    state, generator = numpy.random.RandomState(11), numpy.random.default_rng(11)
    for _ in range(5):
        for block in (state.rand(1_000), generator.random(1_000)):
            assert len(formula.find(block) or bytes(1_000)) <= FORMULA_SURE_BYTES
    space = GenerativeSpace(12, values="normal")
    blocks = [space.gather(range(start, start + 500)) for start in range(0, 2_500, 500)]
    formula.hint(GenerativeSpace(12, values="normal"))
    assert all(len(formula.find(block) or bytes(1_000)) <= FORMULA_SURE_BYTES for block in blocks)


def test_what_is_known_is_bounded() -> None:
    """However many fills there are, a thousand starts and sixteen keys are kept, the latest."""
    for seed in range(1_100):
        GenerativeSpace(seed, values="normal")[0:200]
    assert _formula.known_counts() == (1_024, _formula.KEYS_MAX)
    last = GenerativeSpace(1_099, values="normal").gather(range(200))
    assert len(formula.find(last) or bytes(1_000)) <= FORMULA_SURE_BYTES


def test_the_best_of_formula_and_compression_is_stored() -> None:
    """A formula that holds many bytes is compared with what compression makes of the block."""
    text = (Path(__file__).read_bytes() * 2)[:4000]
    found = formula.find(text * 50)
    assert found is not None
    assert len(found) > 4000
    assert _frame.parse(FrameCodec().encode([text * 50], [1]))[0][0] in (_frame.LZ4, _frame.ZSTD)
    noise = random.Random(1).randbytes(3000)
    assert _frame.parse(FrameCodec().encode([noise * 50], [1]))[0][0] == _frame.FORMULA


def test_a_named_codec_is_obeyed() -> None:
    """Who asks for raw, lz4 or zstd gets it also where there is a formula."""
    block = numpy.arange(10_000)
    kinds = [_frame.parse(FrameCodec(name).encode([block], [8]))[0][0] for name in (None, "raw", "lz4", "zstd")]
    assert kinds == [_frame.FORMULA, _frame.RAW, _frame.LZ4, _frame.ZSTD]


def test_both_ways_through_the_codec_find_the_same() -> None:
    """The express way stores small flat values as the general way does, and reads what either made."""
    codec = trained_codec()
    noise, filled = random.Random(2).randbytes(100), GenerativeSpace(4)[0:200].tobytes()
    values = [bytes(1000), b"ab" * 900, filled, [0.5] * 300, noise * 9, bytearray(600), "x" * 999]
    for value in values:
        stream = write_graph(value, False)
        frame = codec.express.encode(stream)
        assert frame == codec.encode([stream], [1])
        assert loads(codec.decode(frame)) == value
    assert codec.stats()["formula"]["frames"] >= 12


def test_a_dict_keeps_formulas(tmp_path: Path) -> None:
    """Arrays, bytes and bytearrays of a ThermalDict go down as formulas and come back as they were."""
    with ThermalDict.open(memory_limit="4 MB", spill_dir=str(tmp_path)) as subject:
        made = {
            "array": lambda number: GenerativeSpace(number)[:20_000],
            "bytes": lambda number: bytes(GenerativeSpace(number)[:20_000]),
            "bytearray": lambda number: bytearray(GenerativeSpace(number)[:20_000]),
        }
        for number in range(30):
            for kind, make in made.items():
                subject[kind, number] = make(number)
        counts = subject.stats().codecs["formula"]
        assert counts["frames"] >= 40
        assert counts["raw_bytes"] > 300 * counts["frame_bytes"]
        for (kind, number), value in subject.items():
            wanted = made[kind](number)
            assert type(value) is type(wanted)
            assert bytes(value) == bytes(wanted)
        subject.check()


def test_a_durable_dict_keeps_formulas(tmp_path: Path) -> None:
    """What is written to a directory as a formula is read again by a process that knows nothing of it."""
    with ThermalDict.open(tmp_path / "state.td") as subject:
        subject["bytes"] = GenerativeSpace(1)[:20_000].tobytes()
        assert subject.stats().codecs["formula"]["frames"] == 0
    _formula.forget()
    with ThermalDict.open(tmp_path / "state.td") as subject:
        assert subject["bytes"] == GenerativeSpace(1)[:20_000].tobytes()
    assert sum(file.stat().st_size for file in (tmp_path / "state.td").rglob("*") if file.is_file()) < 20_000


def test_blocks_of_a_memory_are_formulas() -> None:
    """A block that a formula gives takes under 100 bytes below HOT, frame and all, and comes back."""
    memory = SpectralMemory(n_zeros=20, memory_limit="64 MB")
    block = numpy.arange(COUNT).tobytes()
    address = memory.malloc(size=len(block))
    memory.write(address, block)
    before = memory.get_stats().bytes_live
    memory.demote(address)
    assert before - memory.get_stats().bytes_live > len(block) - 4096
    assert memory.read(address) == block


def test_no_room_for_the_comparison_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that runs out of memory is counted, and the block is compressed."""

    def fail(_block: object) -> None:
        raise MemoryError

    monkeypatch.setattr(_formula, "find", fail)
    codec = FrameCodec()
    assert contents(codec.decode(codec.encode([bytes(100_000)], [1]))) == [bytes(100_000)]
    assert codec.stats()["formula"]["failures"] == 1
