"""Compaction of the spill files of a dict, however fast it is written."""

import random
from pathlib import Path

import pytest

from spectral_alloc import ThermalDict
from spectral_alloc.cold_store import ColdStore
from spectral_alloc.governor import governor


def test_a_dict_without_a_background_keeps_its_files_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who overwrites faster than the background compacts helps it: the files stay below 2.5 times what is live."""
    monkeypatch.setitem(ColdStore.__init__.__kwdefaults__, "segment_bytes", 64 << 10)
    monkeypatch.setattr(governor.writer, "submit", lambda reference: None)
    chance = random.Random(5)

    def value(turn: int) -> bytes:
        return random.Random(turn).randbytes(1000)

    with ThermalDict.open(memory_limit=300_000, spill_dir=tmp_path) as subject:
        for key in range(1500):
            subject[key] = value(-key)
        store, worst, latest = subject._tiers.store, 0.0, {key: -key for key in range(1500)}
        for turn in range(1, 12_000):
            key = chance.randrange(1500)
            subject[key] = value(turn)
            latest[key] = turn
            worst = max(worst, store.file_bytes / store.live_bytes)
        assert 1.5 < worst < 2.5
        assert store.write_amplification < 2
        assert all(subject[key] == value(turn) for key, turn in latest.items())
        subject.check()
