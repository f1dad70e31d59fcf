"""FrameCodec among threads, across fork, and after failures."""

import os
import random
import sys
import threading

import pytest
import zstandard
from frame_records import contents, record, repetitive, trained_codec

from spectral_alloc import _frame, frame
from spectral_alloc.errors import CodecError, SpectralAllocError
from spectral_alloc.frame import FrameCodec


@pytest.fixture(scope="module")
def trained() -> FrameCodec:
    return trained_codec()


def test_threads_encode_decode_and_train_at_the_same_time():
    """Every thread gets its values back while dictionaries change under it; every frame is counted."""
    subject = FrameCodec()
    threads, rounds = 6, 1500
    failures: list[BaseException] = []
    done = threading.Event()

    def work(seed: int) -> None:
        draw = random.Random(seed)
        kept: list[tuple[bytes, bytes]] = []
        try:
            for number in range(rounds):
                kind = "person" if number < rounds // 2 else "order"
                data = record(draw.randrange(400), kind)
                if number % 9 == 0:
                    data = draw.randbytes(draw.randrange(9000))
                kept.append((data, subject.encode([data], [1])))
                old, encoded = kept[draw.randrange(len(kept))]
                assert contents(subject.decode(encoded)) == [old]
        except BaseException as error:
            failures.append(error)

    def train() -> None:
        while not done.is_set():
            subject.train()
            subject.stats()

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    trainer = threading.Thread(target=train)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        for thread in (trainer, *workers):
            thread.start()
        for thread in workers:
            thread.join()
    finally:
        done.set()
        trainer.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert sum(counts["frames"] for counts in subject.stats().values()) == threads * rounds
    assert subject.stats()["zstd_dictionary"]["frames"] > 0


def test_a_second_training_at_the_same_time_returns_at_once(monkeypatch):
    """While one thread trains, train() elsewhere is False and encode goes on."""
    subject = FrameCodec()
    for number in range(600):
        subject.encode([record(number)], [1])
    inside, leave = threading.Event(), threading.Event()
    real = zstandard.train_dictionary

    def slow(*arguments, **options):
        inside.set()
        assert leave.wait(10)
        return real(*arguments, **options)

    monkeypatch.setattr(zstandard, "train_dictionary", slow)
    results: list[bool] = []
    trainer = threading.Thread(target=lambda: results.append(subject.train()))
    trainer.start()
    try:
        assert inside.wait(10)
        assert not subject.train()
        assert contents(subject.decode(subject.encode([record(1)], [1]))) == [record(1)]
    finally:
        leave.set()
        trainer.join()
    assert results == [True]


def test_a_forked_child_goes_on_while_the_parent_was_training(trained):
    """The child reads old frames, encodes, and can train, though the lock was held at the fork."""
    encoded = trained.encode([record(3)], [1])
    subject = FrameCodec()
    for number in range(600):
        subject.encode([record(number)], [1])
    with subject._dictionaries._training:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                trained.after_fork()
                subject.after_fork()
                good = contents(trained.decode(encoded)) == [record(3)] and subject.train()
                good = good and contents(subject.decode(subject.encode([record(4)], [1]))) == [record(4)]
                status = 0 if good else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


class Refusing:
    """A compressor that fails as told."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def compress(self, data: bytes, **options: object) -> bytes:
        raise self.error


@pytest.mark.parametrize(("error", "expected"), [
    (RuntimeError("broken library"), CodecError),
    (zstandard.ZstdError("broken library"), CodecError),
    (MemoryError(), MemoryError),
    (KeyboardInterrupt(), KeyboardInterrupt),
])  # fmt: skip
def test_a_failing_codec_raises_cleanly_and_stays_usable(monkeypatch, error, expected):
    """encode raises, the failure is counted (an interrupt is none), and the next encode works."""
    large, small = repetitive(500), record(1)
    subject = trained_codec()
    for code, data in ((_frame.LZ4, large), (_frame.ZSTD_DICTIONARY, small)):
        before = subject.stats()[frame.CODEC_NAMES[code]]
        with monkeypatch.context() as patch:
            patch.setattr(frame.lz4.block, "compress", Refusing(error).compress)
            patch.setattr(subject._contexts, "trained", (1, Refusing(error)))
            with pytest.raises(expected) as caught:
                subject.encode([data], [1])
        subject._contexts.trained = None
        after = subject.stats()[frame.CODEC_NAMES[code]]
        assert after == {**before, "failures": before["failures"] + (expected is not KeyboardInterrupt)}
        assert expected is not CodecError or isinstance(caught.value, SpectralAllocError)
        assert contents(subject.decode(subject.encode([data], [1]))) == [data]


def test_a_failing_plain_compressor_is_replaced():
    """After a failure of zstd without dictionary, the thread makes itself a new context."""
    subject = FrameCodec("zstd")
    subject._contexts.plain = Refusing(zstandard.ZstdError("broken library"))
    with pytest.raises(CodecError, match="zstd failed on 1000 bytes: broken library"):
        subject.encode([b"x" * 1000], [1])
    assert contents(subject.decode(subject.encode([b"x" * 1000], [1]))) == [b"x" * 1000]
    assert subject.stats()["zstd"]["failures"] == 1
