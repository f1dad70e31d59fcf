"""Arrays on touch, in every way that the system permits.

The cases themselves are in touch_cases, and run in processes of their own with a time limit, so that one that hangs
fails instead of hanging the tests.
"""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from touch_cases import edits, memory, processes, reading, system
from touch_cases.names import cases_of

from spectral_alloc import GenerativeSpace

HERE = Path(__file__).resolve().parent
MODULES = (reading, edits, processes, memory, system)
CASES = [name for module in MODULES for name in cases_of(module) if name.startswith("case_")]
WAYS = ("userfaultfd", "userfaultfd-user", "signal", "eager")
LAZY = WAYS[:3]
CASES_OF_THE_KERNEL = ["case_every_kind_of_values", *(name for name in cases_of(system) if name.startswith("case_"))]
SKIPPED = "the same as with userfaultfd: run with --long"
CASES_SECONDS = 240
ALONE_SECONDS = 60
# A sanitizer has a handler for SIGSEGV of its own, and its shadow is no memory of ours.
SANITIZED = bool(os.environ.get("SPECTRAL_ALLOC_SANITIZED"))


def environment(way: str, **more: str) -> dict[str, str]:
    """Where a child finds the package and the cases, and its way."""
    path = os.pathsep.join([str(HERE.parent), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "SPECTRAL_ALLOC_TOUCH": way} | more


@functools.cache
def refusal(way: str) -> str | None:
    """Why the system does not permit a way, None if it does."""
    if SANITIZED and way == "signal":
        return "the sanitizers take SIGSEGV themselves"
    asked = "from spectral_alloc import touch; touch.way()"
    command = [sys.executable, "-c", asked]
    done = subprocess.run(command, env=environment(way), capture_output=True, text=True, timeout=ALONE_SECONDS)
    return done.stderr.strip().splitlines()[-1] if done.returncode != 0 else None


def needs(way: str) -> None:
    """Skip where the system does not permit a way, with its reason."""
    if refusal(way) is not None:
        pytest.skip(f"arrays on touch by {way} are not permitted here: {refusal(way)}")


def alone(way: str, name: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run one case in a process of its own."""
    command = [sys.executable, "-m", "touch_cases", name]
    return subprocess.run(
        command, env=environment(way, **more), capture_output=True, text=True, timeout=ALONE_SECONDS
    )


@pytest.fixture(scope="module", params=WAYS)
def results(request: pytest.FixtureRequest) -> dict[str, str | None]:
    """Case -> its error or None, for one way; cases that were not reached are missing."""
    needs(request.param)
    # It differs from userfaultfd in what the kernel may touch only.
    is_twin = request.param == "userfaultfd-user" and not request.config.getoption("--long")
    wanted = CASES_OF_THE_KERNEL if is_twin else []
    command = [sys.executable, "-X", "faulthandler", "-m", "touch_cases", *wanted]
    with subprocess.Popen(
        command, env=environment(request.param), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=CASES_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            output, errors = process.communicate()
    found = {line["case"]: line["error"] for line in map(json.loads, output.splitlines())}
    left_out = dict.fromkeys(set(CASES) - set(wanted), SKIPPED) if is_twin else {}
    return left_out | found | {"stderr": errors}


@pytest.mark.parametrize("case", CASES)
def test_case(results: dict[str, str | None], case: str) -> None:
    """What the docstring of the case says holds, in each way."""
    assert case in results, f"not reached: {results['stderr']}"
    if results[case] == SKIPPED:
        pytest.skip(SKIPPED)
    assert results[case] is None, results[case]


@pytest.mark.parametrize("way", LAZY)
def test_a_real_fault_is_reported_by_faulthandler(way: str) -> None:
    """With faulthandler enabled a null pointer still ends in its traceback and SIGSEGV, whatever handler is ours."""
    needs(way)
    done = alone(way, "alone_faulthandler")
    assert "arrays worked" in done.stdout
    assert "Segmentation fault" in done.stderr
    assert "alone_faulthandler" in done.stderr
    assert done.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("way", LAZY)
def test_a_real_fault_ends_the_program(way: str) -> None:
    """Without another handler a null pointer ends the process by SIGSEGV."""
    needs(way)
    done = alone(way, "alone_plain_fault")
    assert "arrays worked" in done.stdout
    assert done.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("way", LAZY)
def test_signals_are_handled_as_always(way: str) -> None:
    """A timer's signals reach Python while pages come and go."""
    needs(way)
    assert '"error": null' in alone(way, "alone_python_signal_handlers").stdout


@pytest.mark.parametrize("way", WAYS)
def test_edits_are_in_the_log_when_the_program_ends(way: str, tmp_path: Path) -> None:
    """An array that is open to the end has its edits carried, before the log is closed that was attached after it."""
    needs(way)
    path = tmp_path / "edits.log"
    done = alone(way, "alone_edits_at_the_end", TOUCH_LOG=str(path))
    assert (done.returncode, done.stderr) == (0, "")
    with GenerativeSpace(seed=1).attach(path) as space:
        assert space.edit_count == 50
        assert space[7000] == 0.5


@pytest.mark.parametrize("way", LAZY)
def test_a_damaged_page_is_never_shown(way: str) -> None:
    """A packed page that is damaged on disk: a flush raises CorruptFrameError, a touch ends the program."""
    needs(way)
    done = alone(way, "alone_damage_is_seen_by_a_flush")
    assert "damage was seen" in done.stdout, done.stderr + done.stdout
    done = alone(way, "alone_damage_ends_the_program")
    assert "about to touch" in done.stdout
    assert "a wrong value" not in done.stdout
    assert "damaged" in done.stderr
    assert done.returncode == -signal.SIGABRT


@pytest.mark.parametrize("way", ["userfaultfd", "signal"])
def test_closed_descriptors(way: str) -> None:
    """A program that closes all descriptors, as daemons do, ends with a message where it would read a wrong value."""
    needs(way)
    done = alone(way, "alone_closed_descriptors")
    assert "closed\n" in done.stdout
    assert ("clean pages came" in done.stdout) == (way == "signal")
    assert "a wrong value" not in done.stdout
    assert ("descriptor" if way == "userfaultfd" else "damaged or cannot be read") in done.stderr
    assert done.returncode == -signal.SIGABRT


@pytest.mark.skipif(os.uname().machine not in system.SYS_USERFAULTFD, reason="the filter is for other processors")
@pytest.mark.skipif(SANITIZED, reason="the sanitizers take SIGSEGV themselves")
def test_a_sandbox_that_forbids_userfaultfd() -> None:
    """Under a seccomp filter like Docker's, arrays work by SIGSEGV without being told to."""
    done = alone("", "alone_sandbox_without_userfaultfd")
    assert '"error": null' in done.stdout, done.stdout + done.stderr


def test_an_unknown_way_is_refused() -> None:
    """Another word in SPECTRAL_ALLOC_TOUCH is an error that lists the known ones."""
    asked = "from spectral_alloc import touch; touch.way()"
    done = subprocess.run([sys.executable, "-c", asked], env=environment("magic"), capture_output=True, text=True)
    known = "userfaultfd, userfaultfd-user, signal, eager"
    assert f"SPECTRAL_ALLOC_TOUCH must be one of {known}, not 'magic'" in done.stderr


def test_another_system_is_told_so() -> None:
    """On a system that is not Linux the first array raises NotImplementedError that names the alternatives."""
    asked = "import sys; from spectral_alloc import touch; sys.platform = 'plan9'; touch.way()"
    done = subprocess.run([sys.executable, "-c", asked], env=environment(""), capture_output=True, text=True)
    assert "NotImplementedError: arrays on touch need Linux, and this is plan9" in done.stderr
