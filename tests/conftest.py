"""What every test shares: the long mode, Hypothesis profiles, the tiny dict, and the search for leaks."""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from spectral_alloc import ThermalDict

STEPS_PER_EXAMPLE = 60
WRITER_SECONDS = 20.0  # the background writer keeps a dict alive for the turn that it is at
SUPPRESSED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "ci",
    max_examples=25,
    stateful_step_count=STEPS_PER_EXAMPLE,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=SUPPRESSED,
)
settings.register_profile(
    "long",
    max_examples=2_000,
    stateful_step_count=STEPS_PER_EXAMPLE,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=SUPPRESSED,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--long``, which runs the qualification tests and many more Hypothesis examples."""
    parser.addoption("--long", action="store_true", help="run the tests marked long, with the long profile")


def pytest_configure(config: pytest.Config) -> None:
    """Load the Hypothesis profile of the mode."""
    settings.load_profile("long" if config.getoption("--long") else "ci")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests marked long unless ``--long`` was given."""
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: run with --long"))


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Switch threads as often as CPython can, which is where races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def long_mode(request: pytest.FixtureRequest) -> bool:
    """Whether ``--long`` was given, for tests that only change their size with it."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[..., ThermalDict]]:
    """A factory of dicts whose every closed value leaves RAM at once; what they spill must be gone at the end."""
    spill_dir = tmp_path / "spill"
    spill_dir.mkdir(mode=0o700)
    opened: list[ThermalDict] = []

    def make(items: Any = (), **settings_of_open: Any) -> ThermalDict:
        given = {"memory_limit": 1, "spill_dir": spill_dir} | settings_of_open
        subject = ThermalDict.open(**given)
        opened.append(subject)
        subject.update(items)
        return subject

    yield make
    while opened:
        opened.pop().close()
    gc.collect()
    assert list(spill_dir.iterdir()) == [], "a spill directory outlived its dict"


def open_files() -> dict[str, str]:
    """Descriptor -> what it points at, for this process, without the descriptor that reads the list."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def files_since(before: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Descriptors of our files that were not open before."""
    return [item for item in open_files().items() if item not in before and "spectral_alloc" in item[1]]


@pytest.fixture(autouse=True, scope="module")
def no_leaks() -> Iterator[None]:
    """After each module: no new thread that keeps the process alive, no new descriptor of a file of ours."""
    gc.collect()
    threads_before = set(threading.enumerate())
    files_before = set(open_files().items())
    yield
    if sys.exc_info()[1] is None:
        gc.collect()
    stuck = [t for t in threading.enumerate() if t not in threads_before and not t.daemon and t.is_alive()]
    assert stuck == [], f"threads left over: {stuck}"
    end_seconds = time.monotonic() + WRITER_SECONDS
    while (leaked := files_since(files_before)) and time.monotonic() < end_seconds:
        time.sleep(0.05)
        gc.collect()
    assert leaked == [], f"descriptors left over: {leaked}"
