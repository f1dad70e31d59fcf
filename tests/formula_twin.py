"""Formulas regrown in plain Python, written from docs/formula.md alone: slow, and independent of the C code."""

import struct
from typing import Any

from space_twin import twin

WORD = 2**64
LITERAL, TILE, REPEAT, PATCH, ENVELOPE, POLYNOMIAL, AFFINE, SPACE, PERMUTED, MERSENNE, PCG = range(1, 12)
BIG, NARROW, LAST, WIDTH = 0x80, 0x40, 0x20, 0x03
DOUBLE, RAW, FLOAT = range(3)


class Reader:
    """The bytes of a formula that are left."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        """The next bytes."""
        taken, self.data = self.data[:count], self.data[count:]
        assert len(taken) == count
        return taken

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def word(self, count: int = 8) -> int:
        """A little-endian number."""
        return int.from_bytes(self.take(count), "little")

    def varint(self) -> int:
        """A number in 7 bits a byte."""
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def zigzag(self) -> int:
        """A number with its sign in bit 0."""
        number = self.varint()
        return number >> 1 if number % 2 == 0 else -(number + 1 >> 1)


def regrow(formula: bytes, raw_bytes: int) -> bytes:
    """The block of a formula."""
    reader = Reader(formula)
    assert reader.byte() == 1
    block = expression(reader, raw_bytes)
    assert reader.data == b""
    assert len(block) == raw_bytes
    return block


def expression(reader: Reader, count: int) -> bytes:
    """The bytes of one expression."""
    kind = reader.byte()
    if kind == LITERAL:
        return reader.take(count)
    if kind in (TILE, REPEAT, PATCH, ENVELOPE):
        return {TILE: tile, REPEAT: repeat, PATCH: patch, ENVELOPE: envelope}[kind](reader, count)
    items = {
        POLYNOMIAL: polynomial, AFFINE: affine, SPACE: space, PERMUTED: permuted, MERSENNE: mersenne, PCG: pcg,
    }[kind](reader, count)  # fmt: skip
    return b"".join(items)[:count]


def tile(reader: Reader, count: int) -> bytes:
    """One period again and again."""
    period = reader.varint()
    return (expression(reader, period) * (count // period + 1))[:count]


def repeat(reader: Reader, count: int) -> bytes:
    """Each item several times."""
    width, times = reader.byte(), reader.varint()
    inner = expression(reader, -(-count // width // times) * width)
    return b"".join(inner[at : at + width] * times for at in range(0, len(inner), width))[:count]


def patch(reader: Reader, count: int) -> bytes:
    """Some items replaced."""
    width, at, patches = reader.byte(), 0, []
    for _ in range(reader.varint()):
        at += reader.varint()
        patches.append((at * width, reader.take(width)))
        at += 1
    block = bytearray(expression(reader, count))
    for place, item in patches:
        block[place : place + width] = item
    return bytes(block)


def envelope(reader: Reader, count: int) -> bytes:
    """Head and tail as they are."""
    heads, tails = reader.byte(), reader.byte()
    head, tail = reader.take(heads), reader.take(tails)
    return head + expression(reader, count - heads - tails) + tail


def polynomial(reader: Reader, count: int) -> list[bytes]:
    """Whole numbers by their differences."""
    kind, degree = reader.byte(), reader.byte()
    width, order = 1 << (kind & WIDTH), "big" if kind & BIG else "little"
    differences = [reader.zigzag() for _ in range(degree + 1)]
    items = []
    for _ in range(count // width):
        items.append((differences[0] % 256**width).to_bytes(width, order))
        differences = [one + other for one, other in zip(differences, [*differences[1:], 0], strict=True)]
    return items


def rounded(value: float) -> float:
    """A double as the nearest float."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def affine(reader: Reader, count: int) -> list[bytes]:
    """start + i * step; a product or sum of two floats that goes by way of a double is rounded as if at once."""
    kind = reader.byte()
    is_double = (kind & WIDTH) == 3
    letter = "d" if is_double or kind & NARROW else "f"
    count_given, width = 2 + bool(kind & LAST), 8 if letter == "d" else 4
    numbers = [struct.unpack("<" + letter, reader.take(width))[0] for _ in range(count_given)]
    start, step = numbers[:2]
    put = (">" if kind & BIG else "<") + ("d" if is_double else "f")
    items = []
    for index in range(count // (8 if is_double else 4)):
        value = index * step + start if letter == "d" else rounded(rounded(rounded(index) * step) + start)
        items.append(struct.pack(put, value))
    if kind & LAST:
        items[-1] = struct.pack(put, numbers[2])
    return items


def key_of(reader: Reader) -> tuple[int, int, int]:
    """Three words."""
    return reader.word(), reader.word(), reader.word()


def space(reader: Reader, count: int) -> list[bytes]:
    """Values of a GenerativeSpace."""
    kind, key = reader.byte(), key_of(reader)
    start, step = reader.word(), reader.zigzag()
    low, span = (reader.zigzag(), reader.varint()) if kind == 3 else (0, 0)
    put = {
        0: lambda address: struct.pack("<d", twin.float64(key, address)),
        1: lambda address: struct.pack("<f", twin.float32(key, address)),
        2: lambda address: struct.pack("<Q", twin.mix(key, address)),
        3: lambda address: struct.pack("<q", twin.number(key, address, low, span or WORD)),
        4: lambda address: struct.pack("<d", twin.normal(key, address)),
    }[kind]
    return [put((start + index * step) % WORD) for index in range(count // (4 if kind == 1 else 8))]


def permuted(reader: Reader, count: int) -> list[bytes]:
    """Numbers of a permutation."""
    width, key = reader.byte(), key_of(reader)
    last, start = reader.varint(), reader.varint()
    bits = max(2, last.bit_length())
    left_bits, right_bits = bits // 2, bits - bits // 2
    items = []
    for position in range(start, start + count // width):
        while True:
            left, right = position >> right_bits, position % (1 << right_bits)
            for turn in range(8):
                if turn % 2 == 0:
                    left ^= twin.mix(key, (right + (turn << 32)) % WORD) >> (64 - left_bits)
                else:
                    right ^= twin.mix(key, (left + (turn << 32)) % WORD) >> (64 - right_bits)
            position = left << right_bits | right
            if position <= last:
                break
        items.append(position.to_bytes(width, "little"))
    return items


def mersenne(reader: Reader, count: int) -> list[bytes]:
    """MT19937 seeded as np.random.seed does."""
    form, seed, skip = reader.byte(), reader.varint(), reader.varint()
    state = [seed]
    for index in range(1, 624):
        state.append((1812433253 * (state[-1] ^ state[-1] >> 30) + index) % 2**32)
    draws: list[int] = []
    while len(draws) < skip + count // 4 + 2:
        for index in range(624):
            mixed = state[index] & 0x80000000 | state[(index + 1) % 624] & 0x7FFFFFFF
            state[index] = state[(index + 397) % 624] ^ mixed >> 1 ^ (0x9908B0DF if mixed % 2 else 0)
            word = state[index]
            word ^= word >> 11
            word ^= word << 7 & 0x9D2C5680
            word ^= word << 15 & 0xEFC60000
            draws.append(word ^ word >> 18)
    draws = draws[skip:]
    if form == RAW:
        return [draw.to_bytes(4, "little") for draw in draws]
    pairs = zip(draws[::2], draws[1::2], strict=False)
    return [struct.pack("<d", ((first >> 5) * 2**26 + (second >> 6)) / 2**53) for first, second in pairs]


def pcg(reader: Reader, count: int) -> list[bytes]:
    """PCG64, XSL-RR."""
    form, state, increment = reader.byte(), reader.word(16), reader.word(16)
    items: list[Any] = []
    for _ in range(-(-count // 8)):
        state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + increment) % 2**128
        folded, turn = (state >> 64 ^ state) % WORD, state >> 122
        draw = (folded >> turn | folded << (64 - turn)) % WORD
        if form == DOUBLE:
            items.append(struct.pack("<d", (draw >> 11) * 2.0**-53))
        elif form == RAW:
            items.append(draw.to_bytes(8, "little"))
        else:
            items.append(struct.pack("<ff", (draw % 2**32 >> 8) * 2.0**-24, (draw >> 40) * 2.0**-24))
    return items
