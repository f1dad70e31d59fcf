"""Every benchmark runs, with the peers that are installed, at a size where its figures say nothing."""

import json
from pathlib import Path

import codec
import hot
import pytest
import race
import race_lap
from hot_subjects import SUBJECTS, operations
from race_systems import SYSTEMS
from race_workloads import WORKLOADS, key_of

RACE_SCALE = 0.0005
RACE_SECONDS = 20.0
ENTRIES = 50


def needed(name: str, installed: bool) -> None:
    """Skip a test about a peer that is not there."""
    if not installed:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("workload", ["records", "arrays", "strings"])
def test_a_lap_gives_every_value_back(system: str, workload: str, tmp_path: Path) -> None:
    """Every system stores and returns what the workload wrote last, of each kind of value."""
    needed(system, SYSTEMS[system].is_installed)
    lap = race_lap.run(system, workload, RACE_SCALE, str(tmp_path), 1_000_000, RACE_SECONDS)
    assert lap["filled"] == lap["value_count"] > 0
    assert lap["operations"] == lap["operations_wanted"] > 0
    assert lap["wrong"] == 0
    assert 0 < lap["p50_us"] <= lap["p99_us"] <= lap["p99.9_us"] <= lap["max_us"]


def test_a_wrong_value_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system that returns the value of another key or version is found out, read by read."""

    class Liar(dict):
        def __getitem__(self, key: str) -> object:
            return super().__getitem__(key_of(0))

    monkeypatch.setitem(SYSTEMS, "dict", race.SYSTEMS["dict"].__class__(lambda _setup: Liar(), (), ""))
    lap = race_lap.run("dict", "records-0", RACE_SCALE, str(tmp_path), 1_000_000, RACE_SECONDS)
    right = sum(number == 0 for number in WORKLOADS["records-0"].scaled(RACE_SCALE).operations()[0])
    assert lap["wrong"] == lap["operations"] - right > 0


def test_a_slow_system_is_stopped_and_reported(tmp_path: Path) -> None:
    """The limit of seconds ends the storing of the values, and the operations; the note tells how far it came."""
    lap = race_lap.run("dict", "records", RACE_SCALE, str(tmp_path), 1_000_000, 0.0)
    assert race.note(lap) == "stored 0 of 300 values in 0 s"
    work = WORKLOADS["records"].scaled(RACE_SCALE)
    values = work.values()
    store = {key_of(number): values.make(number, 0) for number in range(work.value_count)}
    times = race_lap.lap(store, values, *work.operations(), work.value_count, 0.0)
    assert (len(times.took), times.wrong) == (1, 0)
    figures = {"filled": 300, "value_count": 300, "operations": 1, "operations_wanted": 200, "wrong": 0}
    assert race.note(figures | {"wall_seconds": times.wall_seconds}) == "1 operations in 0 s"


def test_the_workload_is_what_the_race_promises() -> None:
    """Operations are the same each time, within the values, popular ones apart, and a tenth of them write."""
    work = WORKLOADS["records"].scaled(0.01)
    numbers, writes = work.operations()
    assert (numbers, writes) == work.operations()
    assert len(numbers) == len(writes) == work.operation_count == 4_000
    assert max(numbers) < work.value_count
    assert 0.05 < sum(writes) / len(writes) < 0.15
    counts = sorted((numbers.count(number) for number in set(numbers)), reverse=True)
    assert counts[0] > 20 * counts[len(counts) // 2]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_values_are_told_apart(workload: str) -> None:
    """A value is right for its own number and version only, and shares no mutable object with another."""
    values = WORKLOADS[workload].values()
    value = values.make(5, 2)
    assert values.is_right(value, 5, 2)
    assert not values.is_right(value, 5, 3)
    assert not values.is_right(value, 6, 2)


def test_the_race_runs_in_a_cage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The program races in processes of their own under a cap, prints the table and keeps the figures."""
    saved = {}
    monkeypatch.setattr(race, "save", lambda name, result: saved.update({name: result}))
    monkeypatch.setattr("sys.argv", ["race.py", "--scale", "0.001", "--only", "thermal", "--only", "dict"])
    monkeypatch.setattr(race, "CAP_BYTES", 10_000_000_000)
    race.main()
    laps = saved["race"]["laps"]["records"]
    assert laps["thermal"]["wrong"] == laps["dict"]["wrong"] == 0
    assert laps["thermal"]["cage"] != laps["dict"]["cage"] == "none"
    assert "thermal" in capsys.readouterr().out
    assert json.dumps(saved)


def test_a_system_over_the_cap_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What outgrows the cage is killed or fails, and the note says so."""
    monkeypatch.setitem(SYSTEMS, "dict", race.SYSTEMS["dict"].__class__(lambda _setup: {}, (), ""))
    monkeypatch.setattr(race, "FIXED_BYTES", 30_000_000)
    lap = race.run_lap("dict", "arrays", 0.02, RACE_SECONDS)
    assert lap["failure"].startswith("exit status")
    assert race.note(lap) == lap["failure"]


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_operation_of_a_subject_runs(name: str) -> None:
    """Each operation that the table of hot entries shows works with this container."""
    needed(name, SUBJECTS[name].is_installed)
    keys = list(range(ENTRIES))
    container = SUBJECTS[name].filled(((key, "value") for key in keys), 4 * ENTRIES)
    found = operations(SUBJECTS[name], container, keys, 1)
    assert {"get", "overwrite", "insert"} <= set(found)
    for run in found.values():
        run()


def test_the_tables_of_hot_entries_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times, bytes and collections of every installed subject, each with its ratio to dict."""
    subjects = [name for name in SUBJECTS if SUBJECTS[name].is_installed]
    rows = hot.times("int", subjects, ENTRIES, 10, 3)
    assert {row["subject"] for row in rows} == set(subjects)
    assert all("ratio" in row for row in rows if row["operation"] in ("get", "overwrite", "insert"))
    assert {row["operation"] for row in rows if row["subject"] == "thermal"} >= {"get_many", "in", "len", "values()"}
    hot.print_times(rows, subjects)
    monkeypatch.setattr(hot, "COLLECTED", {"lists": hot.COLLECTED["lists"]})
    hot.print_collections(hot.collections_rows(["dict", "thermal"], ENTRIES, 1), ENTRIES)
    sizes = hot.bytes_rows(["dict", "thermal"], 2_000)
    assert [row["kind"] for row in sizes if row["subject"] == "thermal"] == ["hot", "cold"]
    hot.print_bytes(sizes)


def test_the_table_of_the_codec_is_complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind of block comes back from every codec that is installed, and wins of formulas show at any size."""
    saved = {}
    monkeypatch.setattr(codec, "save", lambda name, result: saved.update({name: result}))
    monkeypatch.setattr(codec.codec_corpus, "REAL_BLOCKS_MAX", 1)
    monkeypatch.setattr("sys.argv", ["codec.py", "--repeats", "1", "--bytes", "32768"])
    codec.main()
    rows = saved["codec"]["kinds"]
    assert len(rows) >= 30
    assert sum(row["is_formula"] for row in rows.values()) > 15
    assert [line for line in saved["codec"]["wrong"] if "the formula takes" in line] == []
    assert rows["urandom"]["bytes"]["ours"] == rows["urandom"]["bytes"]["plain"]
    assert "urandom" in capsys.readouterr().out
    assert json.dumps(saved)
