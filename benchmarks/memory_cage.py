"""A cap on the memory of a child process: a memory control group where we may make one, else RLIMIT_AS.

    with memory_cage(400_000_000) as cage: cage.run([sys.executable, "script.py"])

The child enters the group before its interpreter starts, so that all of its memory counts.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

GROUP_NAME = f"spectral_alloc_cage_{os.getpid()}"
LEAVE_SECONDS = 10.0
# glibc reserves 64 MB of address space for a thread's own arena, which RLIMIT_AS would count.
ARENA = {"MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Cage:
    """One cap: which ``mechanism`` holds it ("cgroup v1", "cgroup v2" or "RLIMIT_AS"), and its bytes."""

    mechanism: str
    cap_bytes: int
    group: Path | None = None

    @property
    def kills(self) -> bool:
        """Does exceeding the cap kill the child (a control group) or fail its allocations (RLIMIT_AS)?"""
        return self.group is not None

    def run(self, command: Sequence[str], **settings: object) -> subprocess.CompletedProcess[str]:
        """Run a command under the cap and return what it printed."""
        options = {"capture_output": True, "text": True} | settings
        if self.group is None:
            limit = (self.cap_bytes, self.cap_bytes)
            options["env"] = dict(settings.get("env", os.environ)) | ARENA  # type: ignore[call-overload]
            options["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_AS, limit)
            return subprocess.run(command, **options)  # type: ignore[call-overload, no-any-return]
        enter = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.group / "cgroup.procs")]
        return subprocess.run([*enter, *command], **options)  # type: ignore[call-overload, no-any-return]

    def peak_bytes(self) -> int | None:
        """The most that the group ever held, page cache included; None where the kernel does not say."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            with suppress(OSError):
                if self.group is not None:
                    return int((self.group / name).read_text())
        return None


def own_groups() -> Iterator[tuple[str, Path]]:
    """Yield (version, directory) of the memory groups of this process."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, name = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield "cgroup v1", Path("/sys/fs/cgroup/memory") / name.lstrip("/")
        elif number == "0":
            yield "cgroup v2", Path("/sys/fs/cgroup") / name.lstrip("/")


def make_group(version: str, parent: Path, cap_bytes: int) -> Path:
    """Make a group with a cap below ``parent``; OSError where that is not allowed."""
    group = parent / GROUP_NAME
    if version == "cgroup v2":
        with suppress(OSError):
            (parent / "cgroup.subtree_control").write_text("+memory")
    group.mkdir()
    names = ("memory.max",) if version == "cgroup v2" else ("memory.limit_in_bytes",)
    swap = ("memory.swap.max", "0") if version == "cgroup v2" else ("memory.memsw.limit_in_bytes", str(cap_bytes))
    try:
        for name in names:
            (group / name).write_text(str(cap_bytes))
        with suppress(OSError):
            (group / swap[0]).write_text(swap[1])
        # An empty process tells whether members can be moved here at all.
        entering = ["/bin/sh", "-c", 'echo $$ > "$0"', str(group / "cgroup.procs")]
        if subprocess.run(entering, capture_output=True).returncode != 0:
            raise OSError(f"no process can enter {group}")
    except OSError:
        remove_group(group)
        raise
    return group


def remove_group(group: Path) -> None:
    """Remove a group once its last process has left the kernel's books."""
    deadline = monotonic() + LEAVE_SECONDS
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if monotonic() > deadline:
                raise
            sleep(0.05)


@contextmanager
def memory_cage(cap_bytes: int, only_address_space: bool = False) -> Iterator[Cage]:
    """A cage for children; a group made for it is removed at the end."""
    for version, parent in () if only_address_space else own_groups():
        try:
            group = make_group(version, parent, cap_bytes)
        except OSError:
            continue
        try:
            yield Cage(version, cap_bytes, group)
        finally:
            remove_group(group)
        return
    yield Cage("RLIMIT_AS", cap_bytes)


def is_in_memory(path: Path) -> bool:
    """Whether files in ``path`` are memory themselves, so that spilling there would prove nothing."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [(len(mount[1]), mount[2]) for mount in mounts if path.is_relative_to(mount[1])]
    return max(above)[1] in ("tmpfs", "ramfs")


def children_environment() -> dict[str, str]:
    """The environment of a child that must find this package and must not spend memory on thread pools."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def python(script: str | Path, *arguments: object) -> list[str]:
    """The command that runs a Python script with this interpreter."""
    return [sys.executable, str(script), *map(str, arguments)]
