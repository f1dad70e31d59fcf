"""A file system that fails on demand: errors at the k-th call, short writes, a disk that is full.

disk = FaultyFileSystem() disk.fail("write_at", error=OSError(errno.EIO, "injected"), after=3, times=1)   #
the fourth call from now fails disk.fail("write_at", error=KeyboardInterrupt(), late=True)
# done, then Ctrl-C disk.write_bytes_max = 100                                                       # every
write is short disk.disk_bytes = 10_000                                                         # ENOSPC in
the middle of a write disk.before("read_at", gate.wait)                                                # run
code ahead of a call
"""

import copy
import errno
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spectral_alloc.file_system import Buffer, FileSystem

FOREVER = 1 << 62


@dataclass
class Fault:
    """One injected error: it lets ``after`` calls pass, strikes ``times`` calls, and is then used up."""

    error: BaseException
    after: int
    times: int
    late: bool

    def strikes(self) -> bool:
        """Count one call and say whether it fails."""
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0


class FaultyFileSystem(FileSystem):
    """The real file system, except for the faults that a test asks for; ``calls`` counts by method name."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.write_bytes_max = FOREVER
        self.disk_bytes = FOREVER
        self._faults: dict[str, list[Fault]] = {}
        self._hooks: dict[str, Callable[[], object]] = {}

    def fail(
        self, method: str, *, error: BaseException, after: int = 0, times: int = FOREVER, late: bool = False
    ) -> None:
        """Raise ``error`` from ``times`` calls of ``method`` after the next ``after`` ones.

        A ``late`` fault strikes when the work is done.
        """
        assert callable(getattr(FileSystem, method)), method
        self._faults.setdefault(method, []).append(Fault(error, after, times, late))

    def before(self, method: str, hook: Callable[[], object]) -> None:
        """Call ``hook`` ahead of every call of ``method``."""
        assert callable(getattr(FileSystem, method)), method
        self._hooks[method] = hook

    def heal(self) -> None:
        """Forget every fault and hook: the disk works again."""
        self._faults.clear()
        self._hooks.clear()
        self.write_bytes_max = self.disk_bytes = FOREVER

    def write_some(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write at most ``write_bytes_max`` bytes, and ENOSPC once ``disk_bytes`` are used up."""
        self.calls["write_some"] += 1
        self._strike("write_some", late=False)
        room = min(self.write_bytes_max, self.disk_bytes)
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if sum(len(buffer) for buffer in buffers) > room:
            buffers = [b"".join(buffers)[:room]]
        written = super().write_some(fd, buffers, offset)
        self.disk_bytes -= written
        return written

    def _strike(self, method: str, late: bool) -> None:
        for fault in self._faults.get(method, []):
            if fault.late == late and fault.strikes():
                # A copy, because a raised exception keeps every frame that it passed alive.
                raise copy.copy(fault.error)

    def _run(self, method: str, arguments: tuple[Any, ...]) -> Any:
        self.calls[method] += 1
        hook = self._hooks.get(method)
        if hook is not None:
            hook()
        self._strike(method, late=False)
        result = getattr(FileSystem, method)(self, *arguments)
        self._strike(method, late=True)
        return result


def faulty(method: str) -> Callable[..., Any]:
    """Return an override of ``method`` that strikes the faults injected for it."""

    def override(self: FaultyFileSystem, *arguments: Any) -> Any:
        return self._run(method, arguments)

    return override


for name in set(vars(FileSystem)) - {"write_some"}:
    if not name.startswith("_"):
        setattr(FaultyFileSystem, name, faulty(name))
