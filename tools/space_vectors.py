"""The function of GenerativeSpace, version 1, in plain Python, and the known answers that it gives.

    python tools/space_vectors.py                      # writes tests/data/space_vectors_1.json
    python tools/space_vectors.py --check FILE         # compares a file with what this program computes

This is the specification in its shortest form. It shares no code with the library; tests compare the two. Python's
floats are IEEE doubles, and +, -, *, / and math.sqrt round as IEEE 754 says, so the last bit is the same everywhere.
"""

import argparse
import hashlib
import json
import math
import struct
from pathlib import Path

VERSION = 1
DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "tests" / "data" / f"space_vectors_{VERSION}.json"
MASK = 2**64 - 1
MULTIPLIER = 0xBEA225F9EB34556D
INVERSE = pow(MULTIPLIER, -1, 2**64)
RANGE_DRAWS_MAX = 64
PERMUTATION_ROUNDS = 8
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33")

Key = tuple[int, int, int]

# Wichura, "The percentage points of the normal distribution", Applied Statistics 37 (1988), AS 241; highest power first
CENTRE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)  # fmt: skip
TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)  # fmt: skip
FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)  # fmt: skip


def seed_key(seed: int | str | bytes, purpose: str = "") -> Key:
    """The three words of a seed."""
    if isinstance(seed, str):
        text = b"s" + seed.encode("utf-8", "surrogatepass")
    elif isinstance(seed, bytes):
        text = b"b" + seed
    else:
        text = b"i" + seed.to_bytes(seed.bit_length() // 8 + 1, "little", signed=True)
    digest = hashlib.blake2b(text, digest_size=24, person=b"spectral_alloc/1", key=purpose.encode()).digest()
    first, second, third = struct.unpack("<3Q", digest)
    return first, second, third


def mix(key: Key, address: int) -> int:
    """The bits of an address."""
    z = address ^ key[0]
    z ^= z >> 32
    z = z * MULTIPLIER & MASK
    z = z + key[1] & MASK
    z ^= z >> 29
    z = z * MULTIPLIER & MASK
    z ^= z >> 32
    z = z * MULTIPLIER & MASK
    z ^= z >> 29
    return z ^ key[2]


def unmix(key: Key, bits: int) -> int:
    """The address of bits: the steps of mix undone, last first."""
    z = bits ^ key[2]
    z ^= z >> 29 ^ z >> 58
    z = z * INVERSE & MASK
    z ^= z >> 32
    z = z * INVERSE & MASK
    z ^= z >> 29 ^ z >> 58
    z = z - key[1] & MASK
    z = z * INVERSE & MASK
    z ^= z >> 32
    return z ^ key[0]


def float64(key: Key, address: int) -> float:
    """The double at an address, in [0, 1)."""
    return (mix(key, address) >> 11) * 2.0**-53


def float32(key: Key, address: int) -> float:
    """The single at an address, in [0, 1); Python's float holds it exactly."""
    return (mix(key, address) >> 40) * 2.0**-24


def number(key: Key, address: int, low: int, span: int) -> int:
    """The whole number at an address, from low to low + span - 1."""
    bits = mix(key, address)
    for _ in range(RANGE_DRAWS_MAX - 1):
        if bits * span & MASK >= 2**64 % span:
            break
        bits = mix(key, bits)
    return low + (bits * span >> 64)


def logarithm(x: float) -> float:
    """Natural logarithm, from IEEE operations only."""
    word = struct.unpack("<Q", struct.pack("<d", x))[0]
    exponent = (word + (0x95F62 << 32) >> 52) - 1023
    m = struct.unpack("<d", struct.pack("<Q", word - (exponent << 52)))[0]
    s = (m - 1.0) / (m + 1.0)
    t = s * s
    series = 1.0 / 21.0
    for k in range(19, 2, -2):
        series = series * t + 1.0 / k
    return exponent * LN2_HIGH + (s * 2.0 + (s * 2.0 * t * series + exponent * LN2_LOW))


def polynomial(coefficients: tuple[float, ...], x: float) -> float:
    """Horner's rule."""
    total = coefficients[0]
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def normal(key: Key, address: int) -> float:
    """The normal variate at an address: the quantile of its bits."""
    bits = mix(key, address)
    p = (float(bits & 2**63 - 1) + 0.5) * 2.0**-64
    distance = 0.5 - p
    if distance <= 0.425:
        r = 0.180625 - distance * distance
        value = distance * polynomial(CENTRE[0], r) / polynomial(CENTRE[1], r)
    else:
        r = math.sqrt(-logarithm(p))
        above, below, r = (*TAIL, r - 1.6) if r <= 5.0 else (*FAR, r - 5.0)
        value = polynomial(above, r) / polynomial(below, r)
    return -value if bits >> 63 else value


def permuted(seed: int | str | bytes, n: int, position: int) -> int:
    """Where a position goes in the permutation of 0 .. n - 1."""
    key = seed_key(seed, f"permutation {n}")
    width = max(2, (n - 1).bit_length())
    left_bits, right_bits = width // 2, width - width // 2
    while True:
        left, right = position >> right_bits, position & (1 << right_bits) - 1
        for step in range(PERMUTATION_ROUNDS):
            if step % 2 == 0:
                left ^= mix(key, right + (step << 32)) >> 64 - left_bits
            else:
                right ^= mix(key, left + (step << 32)) >> 64 - right_bits
        position = left << right_bits | right
        if position < n:
            return position


def sorted_value(seed: int | str | bytes, n: int, rank: int) -> int:
    """The value of a rank in the sorted space of n values."""
    first, end = (-(-place * 2**64 // n) for place in (rank, rank + 1))
    return first + (mix(seed_key(seed, f"sorted {n}"), rank) * (end - first) >> 64)


SEEDS: tuple[int | str | bytes, ...] = (0, 1337, -1, 2**200 + 1, "ada", "größer", b"", b"\x00\xff")
ADDRESSES = (0, 1, 2, 999, 2**32 - 1, 2**32, 2**53 + 1, 2**63, 2**64 - 2, 2**64 - 1, 0xDEADBEEFCAFEF00D)
RANGES = ((0, 6), (-5, 3), (0, 2**63 + 1), (-(2**63), 2**64))
SIZES = (1, 2, 5, 1000, 2**32, 2**33 + 7, 2**64)


def answers(seed: int | str | bytes) -> dict[str, object]:
    """What stands at the addresses for one seed."""
    key = seed_key(seed)
    return {
        "seed": {"kind": type(seed).__name__, "text": seed.hex() if isinstance(seed, bytes) else str(seed)},
        "key": [f"{word:016x}" for word in key],
        "bits": [f"{mix(key, address):016x}" for address in ADDRESSES],
        "float64": [float64(key, address).hex() for address in ADDRESSES],
        "float32": [float32(key, address).hex() for address in ADDRESSES],
        "normal": [normal(key, address).hex() for address in ADDRESSES],
        "range": [[number(key, address, low, span) for address in ADDRESSES] for low, span in RANGES],
        "permutation": [[permuted(seed, n, at) for at in sorted({0, n // 2, n - 1})] for n in SIZES],
        "sorted": [[sorted_value(seed, n, rank) for rank in sorted({0, n // 2, n - 1})] for n in SIZES],
    }


def vectors() -> dict[str, object]:
    """The whole file."""
    return {
        "version": VERSION,
        "addresses": [f"{address:016x}" for address in ADDRESSES],
        "ranges": [list(pair) for pair in RANGES],
        "sizes": list(SIZES),
        "answers": [answers(seed) for seed in SEEDS],
    }


def main() -> int:
    """Write the file, or compare one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--check", type=Path, metavar="FILE")
    options = parser.parse_args()
    text = json.dumps(vectors(), indent=1, ensure_ascii=True) + "\n"
    if options.check:
        same = options.check.read_text(encoding="ascii") == text
        print("the same" if same else "DIFFERENT")
        return 0 if same else 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="ascii")
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
