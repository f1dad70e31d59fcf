"""SpectralMemory from many threads, through forks, interrupts and failing disks; and compiled users of its capsule."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults import FaultyFileSystem

from spectral_alloc import Residency, SpectralMemory

ROOT = Path(__file__).resolve().parent.parent


def run_all(work: Callable[[int], None], count: int) -> None:
    """Run a function in so many threads, and raise what the first of them raised."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def stress(mem: SpectralMemory, seconds: float, threads: int = 4) -> None:
    """Every thread works on blocks of its own, while all share arenas, compaction and memory pressure."""
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        chance = random.Random(number)
        own: dict[int, bytes] = {}
        while time.monotonic() < end:
            turn = chance.random()
            if turn < 0.35 or not own:
                size = min(int(chance.paretovariate(0.6) * 20), 200_000)
                address = mem.malloc(size)
                own[address] = chance.randbytes(16) * (size // 16) + bytes(size % 16)
                mem.write(address, own[address])
            elif turn < 0.6:
                address = chance.choice(list(own))
                mem.free(address)
                del own[address]
            elif turn < 0.7:
                address = chance.choice(list(own))
                with mem.view(address) as view:
                    assert bytes(view) == own[address]
                    view[:] = own[address] = own[address][::-1]
            elif turn < 0.73:
                mem.demote(chance.choice(list(own)))
            elif turn < 0.74:
                mem.compact(20_000)
            else:
                address = chance.choice(list(own))
                assert mem.read(address) == own[address]
        for address, data in own.items():
            assert mem.read(address) == data
            mem.free(address)

    run_all(work, threads)
    mem.check()
    assert mem.get_stats().blocks == 0


@pytest.mark.parametrize("limit", [None, "2 MB"])
def test_threads_share_a_heap(limit: str | None) -> None:
    """Four threads with every operation at once: each finds its own bytes, and the heap is sound and empty at the
    end."""
    with SpectralMemory(memory_limit=limit) as mem:
        stress(mem, 1.5)


@pytest.mark.long
def test_threads_share_a_heap_for_ten_minutes() -> None:
    """The same for ten minutes, with and without pressure."""
    for limit in (None, "3 MB"):
        with SpectralMemory(memory_limit=limit) as mem:
            stress(mem, 300, threads=6)


def test_threads_that_write_one_block_lose_nothing() -> None:
    """Each thread writes bytes of its own in common blocks that leave and return all the time: every write is found."""
    with SpectralMemory(memory_limit="1 MB") as mem:
        blocks = [mem.calloc(40_000) for _ in range(60)]

        def work(number: int) -> None:
            chance = random.Random(number)
            own = np.zeros((len(blocks), 8), np.uint8)
            for _ in range(400):
                block, at = chance.randrange(len(blocks)), chance.randrange(8)
                own[block, at] = chance.randrange(256)
                mem.write(blocks[block], bytes([own[block, at]]), number * 8 + at)
                if chance.random() < 0.3:
                    mem.demote(blocks[chance.randrange(len(blocks))])
            for block, expected in zip(blocks, own, strict=True):
                assert mem.read(block, number * 8, 8) == expected.tobytes()

        run_all(work, 4)
        mem.check()


def test_a_forked_child_has_the_same_blocks() -> None:
    """Blocks of all tiers read the same in the child, which can make and free its own, while a parent thread works
    on."""
    with SpectralMemory(memory_limit="1 MB") as mem:
        blocks = {}
        for number in range(200):
            address = mem.malloc(10_000)
            blocks[address] = random.Random(number).randbytes(5_000) * 2
            mem.write(address, blocks[address])
        stop = threading.Event()

        def busy() -> None:
            while not stop.is_set():
                mem.free(mem.malloc(100))

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    try:
                        good = all(mem.read(address) == data for address, data in blocks.items())
                        for address in list(blocks)[::2]:
                            mem.free(address)
                        mem.write(mem.malloc(50_000), b"child")
                        mem.check()
                        os._exit(0 if good else 1)
                    except BaseException:
                        os._exit(2)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop.set()
            thread.join()
        assert all(mem.read(address) == data for address, data in blocks.items())
        mem.check()


def test_an_interrupt_leaves_every_block_in_some_tier() -> None:
    """Ctrl-C at any moment of moving blocks up and down: all bytes are there, and the heap is sound."""
    with SpectralMemory(memory_limit="1 MB") as mem:
        blocks = {}
        for number in range(100):
            address = mem.malloc(20_000)
            blocks[address] = random.Random(number).randbytes(2_000) * 10
            mem.write(address, blocks[address])
        previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            for turn in range(60):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0003 + turn * 0.00005)
                    for address in blocks:
                        mem.view(address).release()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    pass
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            pass  # it came while the timer was being stopped
        finally:
            signal.signal(signal.SIGALRM, previous)
        mem.check()
        for address, data in blocks.items():
            assert mem.read(address) == data


def test_a_full_disk_keeps_blocks_in_memory() -> None:
    """With a disk limit that is soon reached, blocks stay in memory, one warning is given, and nothing is lost."""
    with SpectralMemory(memory_limit="1 MB", disk_limit="300 kB") as mem:
        blocks: dict[int, bytes] = {}

        def fill() -> None:
            for number in range(600):
                address = mem.malloc(20_000)
                blocks[address] = random.Random(number).randbytes(20_000)
                mem.write(address, blocks[address])

        with pytest.warns(RuntimeWarning, match="disk full"), pytest.raises(MemoryError):
            fill()
        assert mem.get_stats().events["disk full"] >= 1
        for address, data in blocks.items():
            assert mem.read(address) == data
        mem.check()


def test_the_governor_makes_heaps_and_dicts_share(tmp_path: Path) -> None:
    """A process limit binds a heap with a limit of its own, and one that has none."""
    script = """
        import spectral_alloc
        from spectral_alloc import SpectralMemory, ThermalDict
        spectral_alloc.set_memory_limit("8 MB")
        mem, other = SpectralMemory(), SpectralMemory(memory_limit="6 MB")
        d = ThermalDict()
        for number in range(150):
            for heap in (mem, other):
                heap.write(heap.malloc(100_000), bytes(range(250)) * 400)
            d[number] = list(range(2000))
        spectral_alloc.set_memory_limit("4 MB")
        used = mem.used_bytes + other.used_bytes + d.stats().used_bytes
        assert used < 5_500_000, (mem.used_bytes, other.used_bytes, d.stats().used_bytes)
        mem.check(), other.check(), d.check()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_compiled_module_uses_the_capsule(tmp_path: Path) -> None:
    """A Cython module that knows only memory_api.pxd allocates and frees without the GIL, from threads too."""
    shutil.copy(ROOT / "tests" / "native" / "capsule_user.pyx", tmp_path)
    setup = """
        from Cython.Build import cythonize
        from setuptools import Extension, setup
        made = Extension("capsule_user", ["capsule_user.pyx"])
        setup(ext_modules=cythonize([made], include_path=[ROOT], language_level=3))
    """
    (tmp_path / "setup.py").write_text(textwrap.dedent(setup).replace("ROOT", repr(str(ROOT))))
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    built = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    use = """
        from concurrent.futures import ThreadPoolExecutor
        import capsule_user
        from spectral_alloc import SpectralMemory
        with SpectralMemory() as mem:
            total, address = capsule_user.fill_and_sum(mem, 1000)
            assert total == 499500 and mem.get_stats().blocks == 500
            assert mem.read(address) == (999).to_bytes(8, "little")
            mem.check()
            with ThreadPoolExecutor(3) as pool:     # all in one arena, without the GIL
                for turn in range(20):
                    working = [pool.submit(capsule_user.hammer, mem, seed, 5000 * (seed + 1)) for seed in range(3)]
                    assert capsule_user.hammer(mem, 9, 1000 * turn) == 0
                    mem.check()
                    mem.compact(10_000)
                    assert [work.result() for work in working] == [0, 0, 0]
            assert mem.get_stats().blocks == 500
            mem.check()
    """
    settings = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    used = subprocess.run([sys.executable, "-c", textwrap.dedent(use)], capture_output=True, text=True, env=settings)
    assert used.returncode == 0, used.stderr


def test_faults_of_the_disk_are_reported_with_the_address() -> None:
    """A cold block whose read fails raises the disk's error with a note, and reads again when the disk does."""
    files = FaultyFileSystem()
    with SpectralMemory(file_system=files) as mem:
        address = mem.malloc(10_000)
        data = random.Random(1).randbytes(10_000)
        mem.write(address, data)
        mem.demote(address)
        assert mem.demote(address) is Residency.COLD
        files.fail("read_at", error=OSError(5, "bad sector"))
        with pytest.raises(OSError, match="bad sector") as caught:
            mem.view(address)
        assert f"{address:#018x}" in caught.value.__notes__[0]
        assert mem.where(address) is Residency.COLD
        files.heal()
        assert mem.read(address) == data
        mem.check()
