"""available_memory_bytes and resident_bytes, on imitations of /proc and /sys."""

import mmap
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectral_alloc.limits import DEFAULT_MEMORY_BYTES, MemoryBound, available_memory_bytes, resident_bytes

V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory\n"
V1_CPU_MOUNT = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
HYBRID_MOUNT = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
V1_UNLIMITED = "9223372036854771712\n"
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"

Machine = Callable[[dict[str, str]], Path]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A factory of roots: path -> text of the files below it."""

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def bound(root: Path, address_space_bytes: int | None = None) -> MemoryBound:
    """The bound on that machine, with RLIMIT_AS as given."""
    return available_memory_bytes(root, address_space_limit=lambda: address_space_bytes)


def test_v2_limit_of_own_group(machine: Machine) -> None:
    """memory.max of the process's own group counts, and the source names the file."""
    root = machine(
        {
            "/proc/self/cgroup": "0::/user.slice/job.scope\n",
            "/proc/self/mountinfo": V2_MOUNT,
            "/proc/meminfo": MEMINFO,
            "/sys/fs/cgroup/user.slice/job.scope/memory.max": "300000000\n",
            "/sys/fs/cgroup/user.slice/job.scope/memory.high": "max\n",
            "/sys/fs/cgroup/user.slice/memory.max": "max\n",
        }
    )
    assert bound(root) == MemoryBound(300_000_000, "/sys/fs/cgroup/user.slice/job.scope/memory.max")


def test_v2_high_below_max(machine: Machine) -> None:
    """memory.high counts too: above it the kernel throttles."""
    root = machine(
        {
            "/proc/self/cgroup": "0::/job\n",
            "/proc/self/mountinfo": V2_MOUNT,
            "/sys/fs/cgroup/job/memory.max": "300000000\n",
            "/sys/fs/cgroup/job/memory.high": "200000000\n",
        }
    )
    assert bound(root) == MemoryBound(200_000_000, "/sys/fs/cgroup/job/memory.high")


def test_v2_limit_of_an_ancestor(machine: Machine) -> None:
    """A lower limit of any ancestor, up to the mount point itself, wins over the leaf's."""
    files = {
        "/proc/self/cgroup": "0::/a/b/c\n",
        "/proc/self/mountinfo": V2_MOUNT,
        "/sys/fs/cgroup/a/b/c/memory.max": "500000000\n",
        "/sys/fs/cgroup/a/b/memory.max": "max\n",
        "/sys/fs/cgroup/a/memory.max": "400000000\n",
    }
    assert bound(machine(files)) == MemoryBound(400_000_000, "/sys/fs/cgroup/a/memory.max")
    files["/sys/fs/cgroup/memory.max"] = "100000000\n"
    assert bound(machine(files)) == MemoryBound(100_000_000, "/sys/fs/cgroup/memory.max")


def test_sibling_groups_do_not_count(machine: Machine) -> None:
    """Limits of groups that the process is not in are ignored."""
    root = machine(
        {
            "/proc/self/cgroup": "0::/a\n",
            "/proc/self/mountinfo": V2_MOUNT,
            "/proc/meminfo": MEMINFO,
            "/sys/fs/cgroup/a/child/memory.max": "1000\n",
            "/sys/fs/cgroup/b/memory.max": "1000\n",
            "/sys/fs/cgroup/a/memory.max": "max\n",
        }
    )
    assert bound(root).source == "MemAvailable in /proc/meminfo"


def test_v1_nested_group(machine: Machine) -> None:
    """Version 1 is walked up as well, and its huge number means unlimited."""
    root = machine(
        {
            "/proc/self/cgroup": "5:devices:/\n4:memory:/api/job\n1:cpu:/\n0::/\n",
            "/proc/self/mountinfo": V1_CPU_MOUNT + V1_MOUNT,
            "/proc/meminfo": MEMINFO,
            "/sys/fs/cgroup/memory/api/job/memory.limit_in_bytes": V1_UNLIMITED,
            "/sys/fs/cgroup/memory/api/memory.limit_in_bytes": "700000000\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
        }
    )
    assert bound(root) == MemoryBound(700_000_000, "/sys/fs/cgroup/memory/api/memory.limit_in_bytes")


def test_v1_unlimited_falls_to_meminfo(machine: Machine) -> None:
    """Where no group is limited the machine's available memory is the bound."""
    root = machine(
        {
            "/proc/self/cgroup": "4:memory:/\n",
            "/proc/self/mountinfo": V1_MOUNT,
            "/proc/meminfo": MEMINFO,
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
        }
    )
    assert bound(root) == MemoryBound(8_000_000 * 1024, "MemAvailable in /proc/meminfo")


def test_v1_controllers_mounted_together(machine: Machine) -> None:
    """A hierarchy that carries memory among other controllers is found by its options."""
    root = machine(
        {
            "/proc/self/cgroup": "3:cpu,memory,blkio:/x\n",
            "/proc/self/mountinfo": "35 31 0:32 / /cg/all rw - cgroup cgroup rw,cpu,memory,blkio\n",
            "/cg/all/x/memory.limit_in_bytes": "5000000\n",
        }
    )
    assert bound(root) == MemoryBound(5_000_000, "/cg/all/x/memory.limit_in_bytes")


def test_hybrid_takes_the_lower_of_both(machine: Machine) -> None:
    """With both versions mounted, each is read in its own group and the lower limit wins."""
    files = {
        "/proc/self/cgroup": "4:memory:/old\n0::/new\n",
        "/proc/self/mountinfo": V1_MOUNT + HYBRID_MOUNT,
        "/sys/fs/cgroup/memory/old/memory.limit_in_bytes": "600000000\n",
        "/sys/fs/cgroup/unified/new/cgroup.procs": "1\n",
    }
    assert bound(machine(files)).bytes == 600_000_000
    files["/sys/fs/cgroup/unified/new/memory.max"] = "500000000\n"
    assert bound(machine(files)) == MemoryBound(500_000_000, "/sys/fs/cgroup/unified/new/memory.max")


@pytest.mark.parametrize(
    ("group", "mount", "name"),
    [
        ("0::/docker/abc\n", V2_MOUNT, "/sys/fs/cgroup/memory.max"),
        ("0::/../../other\n", V2_MOUNT, "/sys/fs/cgroup/memory.max"),
        ("4:memory:/docker/abc\n", V1_MOUNT, "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ],
)
def test_container_shows_its_group_at_the_mount(machine: Machine, group: str, mount: str, name: str) -> None:
    """A group named as the host sees it, absent below the mount, means the mount point is the own group."""
    root = machine({"/proc/self/cgroup": group, "/proc/self/mountinfo": mount, name: "250000000\n"})
    assert bound(root) == MemoryBound(250_000_000, name)


def test_mount_of_a_subtree(machine: Machine) -> None:
    """When a mount shows the subtree below one group, the own group is found relative to that."""
    root = machine(
        {
            "/proc/self/cgroup": "0::/docker/abc/worker\n",
            "/proc/self/mountinfo": "31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n",
            "/sys/fs/cgroup/worker/memory.max": "100000000\n",
            "/sys/fs/cgroup/memory.max": "900000000\n",
        }
    )
    assert bound(root) == MemoryBound(100_000_000, "/sys/fs/cgroup/worker/memory.max")


def test_mount_point_with_a_space(machine: Machine) -> None:
    """Escapes in mountinfo are undone."""
    root = machine(
        {
            "/proc/self/cgroup": "0::/job\n",
            "/proc/self/mountinfo": "31 23 0:28 / /my\\040groups rw - cgroup2 cgroup2 rw\n",
            "/my groups/job/memory.max": "123000000\n",
        }
    )
    assert bound(root) == MemoryBound(123_000_000, "/my groups/job/memory.max")


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("0::/job\n", "/sys/fs/cgroup/job/memory.max"),
        ("4:memory:/job\n", "/sys/fs/cgroup/memory/job/memory.limit_in_bytes"),
    ],
)
def test_usual_mounts_without_mountinfo(machine: Machine, group: str, name: str) -> None:
    """Where mountinfo cannot be read, the usual mount points of both versions are tried."""
    root = machine({"/proc/self/cgroup": group, name: "77000000\n"})
    assert bound(root) == MemoryBound(77_000_000, name)


def test_no_membership_file(machine: Machine) -> None:
    """Where /proc/self/cgroup is missing, the limits at the mount point still count."""
    root = machine({"/proc/self/mountinfo": V2_MOUNT, "/sys/fs/cgroup/memory.max": "88000000\n"})
    assert bound(root) == MemoryBound(88_000_000, "/sys/fs/cgroup/memory.max")


def test_address_space_limit(machine: Machine) -> None:
    """RLIMIT_AS counts when it is the lowest and only then."""
    root = machine({"/proc/meminfo": MEMINFO})
    assert bound(root, 400_000_000) == MemoryBound(400_000_000, "RLIMIT_AS")
    assert bound(root, 1 << 62).source == "MemAvailable in /proc/meminfo"
    assert bound(root, 9_000_000_000).source == "MemAvailable in /proc/meminfo"


def test_address_space_limit_of_this_process() -> None:
    """Without an argument, the real RLIMIT_AS of the process is a bound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        pytest.skip("this process is already limited")
    resource.setrlimit(resource.RLIMIT_AS, (1 << 41, hard))
    try:
        assert available_memory_bytes("/nowhere") == MemoryBound(1 << 41, "RLIMIT_AS")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_nothing_known() -> None:
    """Without any file or limit there is a default, and the source says that it is one."""
    unknown = available_memory_bytes("/nowhere", address_space_limit=lambda: None)
    assert unknown.bytes == DEFAULT_MEMORY_BYTES
    assert unknown.source.startswith("default")


@pytest.mark.parametrize("amount", ["", "max", "-1", "0", "12abc", "1.5", "0x10", "9" * 30, "\x00", "1 2"])
def test_garbled_limits_are_passed_over(machine: Machine, amount: str) -> None:
    """A limit that is no positive number below 2**60 is ignored, and its parent's still counts."""
    root = machine(
        {
            "/proc/self/cgroup": "0::/a/b\n",
            "/proc/self/mountinfo": V2_MOUNT,
            "/sys/fs/cgroup/a/b/memory.max": amount,
            "/sys/fs/cgroup/a/memory.max": "66000000\n",
        }
    )
    assert bound(root) == MemoryBound(66_000_000, "/sys/fs/cgroup/a/memory.max")


def test_limits_that_cannot_be_read_are_passed_over(machine: Machine) -> None:
    """A directory where a file should be, and bytes that are no text, raise nothing."""
    root = machine(
        {"/proc/self/cgroup": "0::/\n", "/proc/self/mountinfo": V2_MOUNT, "/proc/meminfo": MEMINFO}
    )
    (root / "sys/fs/cgroup/memory.max").mkdir(parents=True)
    (root / "sys/fs/cgroup/memory.high").write_bytes(b"\xff\xfe\x00")
    assert bound(root).source == "MemAvailable in /proc/meminfo"


PIECES = st.sampled_from(
    ["0::", "4:memory:", "/", "//", "..", "/a", " ", "\n", "\t", ":", "-", " - ", "cgroup2", "cgroup",
     "rw,memory", "31 23 0:28 /", "/sys/fs/cgroup", "\\040", "\\777", "\x00", "MemAvailable:",
     " 12 kB", "ü", "\udc80"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(*(st.lists(PIECES, max_size=20).map("".join) for _ in range(3)))
def test_any_text_is_survived(tmp_path: Path, groups: str, mounts: str, meminfo: str) -> None:
    """Whatever the three files of /proc say, nothing is raised and the bound is not negative."""
    (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
    for name, text in (("self/cgroup", groups), ("self/mountinfo", mounts), ("meminfo", meminfo)):
        (tmp_path / "proc" / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    assert bound(tmp_path).bytes >= 0


def test_bound_of_this_machine() -> None:
    """The real machine gives a bound that is neither absurdly small nor absurdly large."""
    assert 1 << 24 < available_memory_bytes().bytes < 1 << 60


def test_resident_bytes_from_a_root(machine: Machine) -> None:
    """The second field of statm, in pages, is the answer."""
    root = machine({"/proc/self/statm": "9000 1234 800 1 0 700 0\n"})
    assert resident_bytes(root) == 1234 * resource.getpagesize()


@pytest.mark.parametrize("text", [None, "", "12", "a b c"])
def test_resident_bytes_without_statm(machine: Machine, text: str | None) -> None:
    """Where statm is missing or garbled the highest value so far stands in."""
    root = machine({} if text is None else {"/proc/self/statm": text})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak <= resident_bytes(root) <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def touched_pages() -> mmap.mmap:
    """64 MiB that are resident; from the system, since malloc may have as much to spare from other tests."""
    pages = mmap.mmap(-1, 64 << 20)
    pages[:] = b"x" * len(pages)
    return pages


def test_resident_bytes_sees_growth_and_return() -> None:
    """Touched memory shows up, and leaves the figure when it is given back."""
    before = resident_bytes()
    with touched_pages() as pages:
        grown = resident_bytes()
        assert len(pages) == 64 << 20
    assert grown - before > 48 << 20
    assert resident_bytes() < grown - (48 << 20)


def test_resident_bytes_after_fork() -> None:
    """A forked child reads its own memory, not its parent's."""
    resident_bytes()
    child = os.fork()
    if child == 0:
        before = resident_bytes()
        with touched_pages():
            os._exit(0 if resident_bytes() - before > 48 << 20 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
