"""Build table of the compiled modules; all other metadata is in pyproject.toml."""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

HEAP_PARTS = ("", "_units", "_slab", "_table", "_move", "_compact", "_figures", "_fork", "_lock")
HEAP = [f"heap{part}.c" for part in HEAP_PARTS]
TOUCH = [f"touch{part}.c" for part in ("", "_life", "_windows", "_userfault", "_signal")]
GENERATOR = ["mixer.c", "variates.c", "generator.c"]

# module -> C files of cython_ext/core linked into it
EXTENSIONS = {
    "_spectrum": ["spectrum.c"],
    "_frame": ["crc32c.c", "shuffle.c"],
    "_frame_stats": [],
    "_closure": ["closure.c", "reach.c", "listing.c", "rules.c", "set_order.c", "instance.c", "sizer.c"],
    "_graph_stream": ["graph_writer.c", "graph_reader.c", "graph_keys.c", "set_order.c"],
    "_express": ["crc32c.c"],
    "_arena": [],
    "_cell": ["policy.c"],
    "_recipe_book": [],
    "_ledger": ["policy.c"],
    "_stray": ["policy.c"],
    "_regrow": [],
    "_departure": ["policy.c"],
    "_passage": ["policy.c"],
    "_shadows": [],
    "_census": ["policy.c"],
    "_heap": [*HEAP, "spectrum.c"],
    "_heap_ledger": [*HEAP],
    "_heap_pages": [],
    "_heap_moves": [*HEAP],
    "_heap_census": [*HEAP],
    "_parity": ["parity.c"],
    "_policy": ["policy.c", "replay.c"],
    "_log": ["log_record.c", "crc32c.c"],
    "_record_writer": ["log_record.c", "crc32c.c"],
    "_safe": [],
    "_journal": [],
    "_journal_writes": [],
    "_commit": ["crc32c.c"],
    "_restore": [],
    "_thermal": [],
    "_iteration": [],
    "_address": [],
    "_generator": [*GENERATOR, "permutation.c", "sorted.c"],
    "_formula": [f"formula_{part}.c" for part in ("grow", "series", "noise", "find", "shape", "fill")],
    "_edit_journal": ["edit_block.c", "edit_sort.c", "crc32c.c"],
    "_overlay": ["overlay.c", "overlay_bulk.c", "edit_block.c", "edit_sort.c", "crc32c.c"],
    "_space": ["variates.c"],
    "_touch": [*TOUCH, "page_store.c", "page_pack.c", "shuffle.c", "crc32c.c"],
    "_touch_space": ["touch_space.c", *GENERATOR, "overlay.c", "overlay_bulk.c", "edit_sort.c"],
}

HEADERS = sorted(glob("cython_ext/core/*.h"))

# Fused operations would give the numbers of a GenerativeSpace other last bits on some machines.
C_FLAGS = ["-O2", "-g0", "-fno-plt", "-std=c11", "-ffp-contract=off", "-Wall", "-Wextra"]
C_FLAGS += ["-Wno-unused-parameter", "-Wno-unused-function"]
SANITIZERS = "-fsanitize=address,undefined"
SANITIZE_FLAGS = ["-O1", "-g", SANITIZERS, "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]

# SPECTRAL_ALLOC_SANITIZE=1 builds with the address and undefined-behaviour sanitizers (see `make sanitize`).
sanitize = os.environ.get("SPECTRAL_ALLOC_SANITIZE") == "1"
compile_flags = C_FLAGS + (SANITIZE_FLAGS if sanitize else [])
link_flags = [SANITIZERS] if sanitize else []
build_folder = "build/sanitize" if sanitize else "build/cython"


def is_stale(folder):
    """Whether a declaration is newer than some C file: Cython does not look for those beside the package."""
    declarations = [*glob("cython_ext/*.pxd"), *glob("spectral_alloc/*.pxd")]
    made = [os.path.getmtime(path) for path in glob(f"{folder}/cython_ext/*.c")]
    return bool(made) and max(map(os.path.getmtime, declarations)) > min(made)


extensions = [
    Extension(
        f"spectral_alloc.{name}",
        [f"cython_ext/{name}.pyx", *(f"cython_ext/core/{source}" for source in sources)],
        include_dirs=["cython_ext/core"],
        depends=HEADERS,
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
    )
    for name, sources in EXTENSIONS.items()
    if os.path.exists(f"cython_ext/{name}.pyx")
]

setup(
    ext_modules=cythonize(
        extensions,
        include_path=[".", "cython_ext"],
        build_dir=build_folder,
        force=is_stale(build_folder),
        compiler_directives={"language_level": 3, "embedsignature": True, "binding": True},
    )
)
