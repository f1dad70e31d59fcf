"""The common way down and up: what it may drop, and what it must not."""

import gc
import random
from typing import Any

import pytest

from spectral_alloc import Residency, ThermalDict
from spectral_alloc.frame_dictionary import FrameDictionaries

WORDS = [f"word{number * 7919 % 1000}" for number in range(300)]


def record(number: int) -> dict[str, Any]:
    """A record like its neighbours."""
    draw = random.Random(number)
    text = "what all records say: " + " ".join(draw.choices(WORDS, k=40))
    return {"number": number, "marks": [draw.random() for _ in range(4)], "text": text, "x": [number]}


@pytest.fixture
def trained() -> ThermalDict:
    """A dict of records under pressure, whose codec has its dictionary."""
    subject = ThermalDict.open(memory_limit=4_000_000)
    for number in range(8_000):
        subject[number] = record(number)
    subject._tiers.codec.train()
    assert subject._tiers.codec._dictionaries.current is not None
    return subject


def test_values_go_down_and_come_up_unchanged(trained: ThermalDict) -> None:
    """Through the common way, from WARM and from COLD, edits between two passages included."""
    for turn in range(2):
        for number in range(0, 8_000, 7):
            trained[number]["x"].append(turn)
    for number in range(8_000):
        expected = record(number)
        expected["x"] += [0, 1] if number % 7 == 0 else []
        assert trained[number] == expected
    trained.check()
    assert trained.stats().codecs["zstd_dictionary"]["frames"] > 3_000
    trained.close()


def test_a_value_found_by_the_collector_stays(trained: ThermalDict, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a value is compressed, code in between that gets at it by gc.get_objects() keeps it HOT, and the same."""
    found: list[Any] = []
    observe = FrameDictionaries.observe

    def look(self: FrameDictionaries, data: bytes, stored_bytes: int) -> None:
        observe(self, data, stored_bytes)
        if not found:
            found.extend(one for one in gc.get_objects() if type(one) is dict and one.get("number") == 50_000)

    value = record(50_000)
    trained["k"] = value
    del value
    with monkeypatch.context() as patch:
        patch.setattr(FrameDictionaries, "observe", look)
        number = 60_000
        while not found:
            trained[number] = record(number)
            number += 1
    assert trained.where("k") is Residency.HOT
    found[0]["x"].append("seen")
    assert trained["k"] is found[0]
    trained.check()
    trained.close()


def test_a_use_in_the_middle_of_a_passage_keeps_the_value(
    trained: ThermalDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read of the departing entry itself calls its departure off; no edit is lost."""
    kept: list[Any] = []
    observe = FrameDictionaries.observe

    def use(self: FrameDictionaries, data: bytes, stored_bytes: int) -> None:
        observe(self, data, stored_bytes)
        if b"the departing one" in data and not kept:
            kept.append(trained["k"])
            kept[0]["x"].append("edited")

    trained["k"] = record(50_000) | {"name": "the departing one"}
    with monkeypatch.context() as patch:
        patch.setattr(FrameDictionaries, "observe", use)
        for number in range(60_000, 63_000):
            trained[number] = record(number)
    assert kept[0] is trained["k"]
    kept.clear()
    assert trained.demote("k")
    assert trained["k"]["x"] == [50_000, "edited"]
    trained.close()
