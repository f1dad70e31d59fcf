"""How much memory this process may use, and how much it uses: cgroups, RLIMIT_AS and MemAvailable.

Words: a *group* is a control group (cgroup); a *controller view* is one mounted hierarchy that can limit
memory, with the directory of the process's own group in it. Limits of ancestors bind too, so each view is
walked up to its mount. All files are found below an injectable root, which is how every kind of machine is
tested on any machine.
Cost: a few dozen small files per call; meant for start-up and a slow watchdog. Threads: stateless.
"""

import os
import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["DEFAULT_MEMORY_BYTES", "MemoryBound", "available_memory_bytes", "resident_bytes"]

# Assumed where nothing is known at all (no /proc, no limits): what a small container has.
DEFAULT_MEMORY_BYTES = 1 << 30
# "Unlimited" is written as a huge number by version 1 (2**63 rounded down to a page) and by some container
# runtimes.
UNLIMITED_BYTES = 1 << 60
LIMIT_FILES = {"cgroup2": ("memory.max", "memory.high"), "cgroup": ("memory.limit_in_bytes",)}
DEFAULT_MOUNTS = {"cgroup2": "/sys/fs/cgroup", "cgroup": "/sys/fs/cgroup/memory"}


@dataclass(frozen=True)
class MemoryBound:
    """The most memory that the process may use: ``bytes``, and in words which limit said so."""

    bytes: int
    source: str


@dataclass(frozen=True)
class ControllerView:
    """One mounted hierarchy: its kind, its mount point, and which group appears there."""

    kind: str
    mount: str
    mounted_group: str


def address_space_limit_bytes() -> int | None:
    """Return the soft RLIMIT_AS of this process, None when there is none."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def available_memory_bytes(
    root: str | os.PathLike[str] = "/",
    *,
    address_space_limit: Callable[[], int | None] = address_space_limit_bytes,
) -> MemoryBound:
    """Return the lowest bound on this process's memory, and where it comes from.

    Parameters: root (the directory below which /proc and /sys are read), address_space_limit (gives
    RLIMIT_AS). Files that are missing, unreadable or garbled are passed over, nothing is raised; where
    nothing at all is known the answer is ``DEFAULT_MEMORY_BYTES``.

    >>> available_memory_bytes("/nowhere", address_space_limit=lambda: 10**9)
    MemoryBound(bytes=1000000000, source='RLIMIT_AS')
    """
    base = Path(root)
    bounds = list(cgroup_bounds(base))
    address_space_bytes = address_space_limit()
    if address_space_bytes is not None and 0 < address_space_bytes < UNLIMITED_BYTES:
        bounds.append(MemoryBound(address_space_bytes, "RLIMIT_AS"))
    available = re.search(r"^MemAvailable:\s*([0-9]{1,18}) kB$", text_of(base / "proc/meminfo"), re.MULTILINE)
    if available is not None:
        bounds.append(MemoryBound(int(available[1]) * 1024, "MemAvailable in /proc/meminfo"))
    if not bounds:
        return MemoryBound(DEFAULT_MEMORY_BYTES, "default, as no limit of this process could be read")
    return min(bounds, key=lambda bound: bound.bytes)


def cgroup_bounds(base: Path) -> Iterator[MemoryBound]:
    """Yield every memory limit of the process's groups and of their ancestors, in both versions."""
    own_groups = own_group_by_kind(text_of(base / "proc/self/cgroup"))
    for view in controller_views(text_of(base / "proc/self/mountinfo")):
        for group in visible_groups(base, view, own_groups.get(view.kind, "/")):
            for name in LIMIT_FILES[view.kind]:
                path = group / name
                amount = text_of(base / path.relative_to("/")).strip()
                if re.fullmatch("[0-9]{1,20}", amount) and 0 < int(amount) < UNLIMITED_BYTES:
                    yield MemoryBound(int(amount), str(path))


def own_group_by_kind(text: str) -> dict[str, str]:
    """Return the process's group in each kind of hierarchy that can limit memory, from /proc/self/cgroup.

    >>> own_group_by_kind("4:memory:/job\\n1:cpu:/\\n0::/user.slice\\n")
    {'cgroup': '/job', 'cgroup2': '/user.slice'}
    """
    groups = {}
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, separator, group = rest.partition(":")
        if not separator or not group.startswith("/"):
            continue
        if "memory" in controllers.split(","):
            groups["cgroup"] = absolute(group)
        elif hierarchy == "0" and not controllers:
            groups["cgroup2"] = absolute(group)
    return groups


def controller_views(text: str) -> list[ControllerView]:
    """Return the mounted hierarchies that can limit memory, from mountinfo; the usual places if it has none.

    >>> controller_views("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 none rw")
    [ControllerView(kind='cgroup2', mount='/sys/fs/cgroup', mounted_group='/')]
    """
    views = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind_fields = before.split(), after.split()
        if not separator or len(fields) < 5 or len(kind_fields) < 3:
            continue
        kind, options = kind_fields[0], kind_fields[2].split(",")
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options):
            mounted_group, mount = (absolute(unescaped(field)) for field in fields[3:5])
            views.append(ControllerView(kind, mount, mounted_group))
    return views or [ControllerView(kind, mount, "/") for kind, mount in DEFAULT_MOUNTS.items()]


def absolute(path: str) -> str:
    """Return a path with one slash in front: a path with two is a different thing to pathlib."""
    return "/" + path.lstrip("/")


def unescaped(field: str) -> str:
    """Return a field of mountinfo with its octal escapes replaced: a space is written ``\\040`` there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def visible_groups(base: Path, view: ControllerView, own_group: str) -> list[PurePosixPath]:
    """Return the directories of the process's group and of its ancestors, up to the mount point.

    Inside a container the group is often named as the host sees it and does not exist below the mount, which
    then shows the container's group: only the mount point is left.
    """
    mount = PurePosixPath(view.mount)
    own = PurePosixPath(own_group)
    if own.is_relative_to(view.mounted_group):
        own = own.relative_to(view.mounted_group)
    else:
        own = own.relative_to("/")
    group = mount / own
    if ".." in own.parts or not is_directory(base / group.relative_to("/")):
        return [mount]
    return [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]


def is_directory(path: Path) -> bool:
    """Say whether a path is a directory, False also where that cannot be found out."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def text_of(path: Path) -> str:
    """Return what a small file says, and nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):
        return ""


def resident_bytes(root: str | os.PathLike[str] = "/") -> int:
    """Return the bytes of RAM this process holds now (RSS); its peak so far where /proc does not tell.

    Cost: three system calls, some microseconds. The file is opened anew each time, because one that is kept
    open would go on showing the parent in a forked child.

    >>> resident_bytes() > 1_000_000
    True
    """
    try:
        fd = os.open(os.path.join(root, "proc/self/statm"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 256).split()[1]) * resource.getpagesize()
        finally:
            os.close(fd)
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
