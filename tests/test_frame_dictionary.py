"""Dictionaries trained on a container's own values: gains, drift, bounds."""

import random

import pytest
from frame_records import contents, record, trained_codec

from spectral_alloc import _frame, frame, frame_dictionary
from spectral_alloc._frame_stats import SampleReservoir
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.frame import FrameCodec


@pytest.fixture(scope="module")
def trained() -> FrameCodec:
    return trained_codec()


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_a_trained_dictionary_shortens_similar_small_values(codec):
    """Records that training never saw take a quarter less at least, and old frames stay readable."""
    subject = FrameCodec(codec)
    before = {number: subject.encode([record(number)], [1]) for number in range(700)}
    fresh = range(10_000, 10_200)
    plain_bytes = sum(len(subject.encode([record(number)], [1])) for number in fresh)
    assert subject.train()
    after = {number: subject.encode([record(number)], [1]) for number in fresh}
    assert sum(map(len, after.values())) < 0.75 * plain_bytes
    for number, encoded in {**before, **after}.items():
        assert contents(subject.decode(encoded)) == [record(number)]
    assert subject.stats()["zstd_dictionary"]["frames"] == len(fresh)


def test_training_is_due_only_with_samples_enough():
    """Before that, and with codecs that have no dictionary or no memory for samples, train() does nothing."""
    subject = FrameCodec()
    for number in range(400):
        subject.encode([record(number)], [1])
    assert not subject.train_due
    assert not subject.train()
    for other in (FrameCodec("lz4"), FrameCodec("raw"), FrameCodec(sample_limit_bytes=50_000)):
        for number in range(600):
            other.encode([record(number)], [1])
        assert not other.train_due
        assert other.resident_bytes == 0


def test_resident_bytes_count_samples_and_dictionaries(trained):
    """Samples stay within their limit, and a dictionary is counted with its tables."""
    subject = FrameCodec(sample_limit_bytes=100_000)
    for number in range(300):
        subject.encode([record(number)], [1])
    assert 90_000 < subject.resident_bytes < 110_000
    assert trained.resident_bytes > frame_dictionary.DICTIONARY_BYTES_MAX // 2


def test_training_without_gain_keeps_no_dictionary_and_in_the_end_no_samples():
    """Random values are tried at both thresholds, then left alone."""
    subject = FrameCodec()
    draw = random.Random(8)
    trainings = 0
    for _ in range(9000):
        subject.encode([draw.randbytes(120)], [1])
        if subject.train_due:
            trainings += 1
            assert not subject.train()
    assert trainings == 2
    assert subject.resident_bytes == 0
    assert subject.stats()["zstd_dictionary"]["frames"] == 0


def test_a_long_run_is_trained_on_again_from_all_its_parts():
    """At the second threshold the samples represent the whole run, and a dictionary for both halves wins."""
    subject = FrameCodec()
    for number in range(9000):
        kind = "person" if number < 600 or number % 2 else "order"
        subject.encode([record(number % 3000, kind)], [1])
        if subject.train_due:
            subject.train()
    last = subject.encode([record(77_777, "order")], [1])
    assert _frame.parse(last)[0][1] == 2


def test_drift_collects_afresh_and_the_next_dictionary_restores_the_ratio():
    """Unlike values bring the ratio under 80 %: training is due again, and all frames stay readable."""
    subject = FrameCodec()
    dictionaries = subject._dictionaries
    for number in range(9000):
        subject.encode([record(number % 1500)], [1])
        if subject.train_due:
            subject.train()
    assert not subject.train_due
    assert not dictionaries.drifted
    old = subject.encode([record(50_000)], [1])
    sizes = []
    while not subject.train_due:
        sizes.append(len(subject.encode([record(len(sizes), "order")], [1])))
        assert len(sizes) < 3000, "drift was never noticed"
    assert dictionaries.drifted
    new_id = _frame.parse(old)[0][1] + 1
    assert subject.train()
    assert not dictionaries.drifted
    new = subject.encode([record(99_999, "order")], [1])
    assert _frame.parse(new)[0][1] == new_id
    assert len(new) < 0.8 * sizes[-1]
    assert contents(subject.decode(old)) == [record(50_000)]
    assert contents(subject.decode(new)) == [record(99_999, "order")]


def test_the_number_of_dictionaries_is_bounded(monkeypatch):
    """At the cap nothing is sampled or trained any more, however much the values drift."""
    monkeypatch.setattr(frame_dictionary, "DICTIONARIES_MAX", 1)
    subject = trained_codec()
    held_bytes = subject.resident_bytes
    for number in range(2000):
        subject.encode([record(number, f"kind{number % 7}" * 9)], [1])
    assert not subject.train_due
    assert subject.resident_bytes == held_bytes


def test_a_dictionary_of_another_container_is_not_used(trained):
    """A frame names a dictionary of its own container; where that number is unknown, it is damage."""
    encoded = trained.encode([record(123)], [1])
    with pytest.raises(CorruptFrameError, match="dictionary 1"):
        FrameCodec().decode(encoded)


def test_decompressors_of_many_dictionaries_are_dropped_and_made_again(monkeypatch, trained):
    """A thread keeps few of them, and reads frames of all."""
    monkeypatch.setattr(frame, "DECOMPRESSORS_MAX", 1)
    frames = {number: trained.encode([record(number)], [1]) for number in range(3)}
    plain = FrameCodec("zstd").encode([b"spectral " * 30], [1])
    for number, encoded in frames.items():
        assert contents(trained.decode(plain)) == [b"spectral " * 30]
        assert contents(trained.decode(encoded)) == [record(number)]
    assert len(trained._contexts.decompressors) == 1


def test_the_reservoir_is_bounded_and_represents_the_whole_run():
    """Neither limit is exceeded, and early, middle and late offers are kept in like numbers."""
    reservoir = SampleReservoir(300, 6000, seed=3)
    for number in range(30_000):
        reservoir.offer(b"%06d" % number + bytes(number % 20))
        assert reservoir.byte_count <= 6000
    samples = reservoir.samples()
    assert len(samples) <= 300
    assert sum(map(len, samples)) == reservoir.byte_count
    assert reservoir.offered_count == 30_000
    assert reservoir.resident_bytes > reservoir.byte_count
    thirds = [sum(1 for sample in samples if int(sample[:6]) // 10_000 == third) for third in range(3)]
    assert min(thirds) > len(samples) / 6
    with pytest.raises(ValueError, match="0 samples"):
        SampleReservoir(0, 10)
