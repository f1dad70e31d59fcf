"""System calls on missing pages, signals, sandboxes, damage, and the end of the program."""

import ctypes
import errno
import faulthandler
import gc
import io
import os
import signal
import tempfile
from collections.abc import Callable

import numpy

from spectral_alloc import GenerativeSpace, SpectralMemory, touch
from touch_cases import TINY, checked, same, tiny

COUNT = 50_000
HALF_COUNT = 49 * 512  # whole pages
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}


def serves_the_kernel() -> bool:
    """Whether system calls may touch missing pages."""
    return touch.way() in ("userfaultfd", touch.EAGER)


def refused_or(call: Callable[[], None]) -> None:
    """The call works where system calls are served, and elsewhere fails with EFAULT, or without a number."""
    if serves_the_kernel():
        call()
        return
    try:
        call()
    except OSError as error:
        assert error.errno in (errno.EFAULT, None), error
    else:
        raise AssertionError("a system call touched a missing page and did not say so")


def case_system_calls_on_missing_pages() -> None:
    """write, tofile and pread touch missing pages where the way serves the kernel, and fail loudly elsewhere."""
    space = GenerativeSpace(seed=1)
    expected = space[:COUNT]
    array = tiny(space, COUNT)
    half = COUNT // 2
    with tempfile.TemporaryFile() as file:
        refused_or(lambda: os.write(file.fileno(), array) == array.nbytes or os.write(0, b""))
        file.truncate(0)
        touch.evict(array)
        refused_or(lambda: array.tofile(file))
        file.seek(0)
        file.truncate(0)
        file.write(numpy.arange(half, dtype="f8").tobytes())
        file.flush()
        touch.evict(array)
        refused_or(lambda: os.preadv(file.fileno(), [array[:half]], 0) and None)
        if serves_the_kernel():
            expected[:half] = numpy.arange(half)
            touch.evict(array)
        assert same(array, expected)
        space.flush()
        assert same(space[:COUNT], expected)
    checked(array)


def case_system_calls_after_populate() -> None:
    """What was populated can be given to any system call, in any way."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    part = array[1000:4000]
    with tempfile.TemporaryFile() as file:
        touch.populate(part)
        assert os.write(file.fileno(), part) == part.nbytes
        assert os.pread(file.fileno(), part.nbytes, 0) == space[1000:4000].tobytes()
    # Python's own buffered objects copy in user mode, which needs nothing.
    assert io.BytesIO(array).getvalue() == space[:COUNT].tobytes()


def alone_faulthandler() -> None:
    """With faulthandler enabled before and after, arrays work, and a real fault still ends in its report."""
    faulthandler.enable()
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    assert same(array, space[:COUNT])
    faulthandler.disable()
    faulthandler.enable()
    touch.way()  # as every new array does: our handler comes first again
    touch.evict(array)
    assert same(array, space[:COUNT])
    checked(array)
    print("arrays worked", flush=True)
    ctypes.string_at(8)


def alone_plain_fault() -> None:
    """Without another handler a real fault ends the process as always."""
    faulthandler.disable()
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    assert same(array, space[:COUNT])
    print("arrays worked", flush=True)
    ctypes.string_at(8)


def alone_python_signal_handlers() -> None:
    """Signals and Ctrl-C are handled as always while pages come and go."""
    seen: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    for _ in range(20):
        array[::700] += 1
        touch.evict(array)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert seen
    expected = space[:COUNT]
    for _ in range(20):
        expected[::700] += 1
    assert same(array, expected)


def alone_edits_at_the_end() -> None:
    """Edits of an array that is still open when the program ends are in the log: this only makes them."""
    global _kept
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    space.attach(os.environ["TOUCH_LOG"])
    array[::1000] = 0.5
    _kept = array


_kept: object = None


def spill_files() -> list[str]:
    """Paths of the nameless files that packed pages are in."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{name}"
        try:
            is_ours = "(deleted)" in os.readlink(path) and os.stat(path).st_size >= 4096
        except FileNotFoundError:
            continue
        if is_ours:
            found.append(path)
    return found


def damaged_array() -> "tuple[GenerativeSpace, numpy.ndarray]":
    """An array with packed pages in a file of which every byte was changed."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    array[:] = numpy.random.default_rng(1).random(COUNT)
    touch.evict(array)
    files = spill_files()
    assert files
    for path in files:
        with open(path, "r+b") as file:
            data = bytes(byte ^ 255 for byte in file.read())
            file.seek(0)
            file.write(data)
    return space, array


def alone_damage_is_seen_by_a_flush() -> None:
    """A packed page that is damaged on disk makes a flush raise CorruptFrameError; nothing false reaches the space."""
    space, array = damaged_array()
    try:
        touch.flush(array)
    except ValueError as error:
        assert type(error).__name__ == "CorruptFrameError"
    else:
        raise AssertionError("the damage was not seen")
    assert set(space[:COUNT].tolist()) - {value for _, value in space.edits()} <= set(
        GenerativeSpace(seed=1)[:COUNT].tolist()
    )
    touch.owner(array).flush = lambda: None
    print("damage was seen", flush=True)
    os._exit(0)


def alone_damage_ends_the_program() -> None:
    """Touching a page that is damaged on disk ends the program with a message: there is no value to give."""
    _space, array = damaged_array()
    print("about to touch", flush=True)
    array.sum()
    print("a wrong value was given", flush=True)


def alone_closed_descriptors() -> None:
    """When the program closes descriptors that it has not opened, no other file is touched and no wrong value shown."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    array[: HALF_COUNT] = numpy.random.default_rng(1).random(HALF_COUNT)
    touch.evict(array)
    os.closerange(3, 256)
    others = [os.memfd_create("other") for _ in range(40)]
    print("closed", flush=True)
    expected = space[HALF_COUNT : COUNT]
    assert same(array[HALF_COUNT :], expected)
    array[HALF_COUNT :] = 1
    touch.evict(array)
    assert (array[HALF_COUNT :] == 1).all()
    assert [os.fstat(other).st_size for other in others] == [0] * 40
    print("clean pages came", flush=True)
    array.sum()
    print("a wrong value was given", flush=True)


def alone_sandbox_without_userfaultfd() -> None:
    """Where a sandbox forbids userfaultfd, as Docker's does, arrays work by SIGSEGV."""
    forbid_userfaultfd()
    assert touch.way() == "signal"
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    array[::10] = 1
    touch.evict(array)
    expected = space[:COUNT]
    expected[::10] = 1
    assert same(array, expected)


def forbid_userfaultfd() -> None:
    """A seccomp filter like Docker's: the system call, and the device that gives the same, answer EPERM."""

    class Filter(ctypes.Structure):
        _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(Filter))]

    load, equal, answer = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    sys_ioctl = {"x86_64": 16, "aarch64": 29}[os.uname().machine]
    steps = [
        (load, 0, 0, 0),  # the number of the system call
        (equal, 4, 0, SYS_USERFAULTFD[os.uname().machine]),
        (equal, 0, 2, sys_ioctl),
        (load, 0, 0, 24),  # its second argument
        (equal, 1, 0, 0xAA00),  # USERFAULTFD_IOC_NEW
        (answer, 0, 0, allow),
        (answer, 0, 0, refuse),
    ]
    filters = (Filter * len(steps))(*(Filter(*step) for step in steps))
    program = Program(len(steps), filters)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0


def case_arrays_come_and_go() -> None:
    """Hundreds of arrays that come and go leave no mapping, no file and no charge behind."""
    space = GenerativeSpace(seed=1)
    memory = SpectralMemory(memory_limit="32 MB")

    def maps() -> int:
        with open("/proc/self/maps") as file:
            return len(file.readlines())

    def round_of(count: int) -> None:
        for number in range(count):
            array = tiny(space, 3000, start=number)
            assert array[2999] == space[number + 2999]
            zeros = memory.array(None, "f8", 3000, resident_limit=None if touch.way() == touch.EAGER else TINY)
            zeros[:] = number

    round_of(20)
    gc.collect()
    before, files = maps(), len(os.listdir("/proc/self/fd"))
    round_of(100)
    gc.collect()
    assert maps() <= before + 8
    assert len(os.listdir("/proc/self/fd")) <= files + 1
    memory.close()
