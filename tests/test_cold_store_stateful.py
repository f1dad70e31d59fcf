"""ColdStore against a plain dict under random operations and faults; exceptions to the model: none."""

import errno
import tempfile
from pathlib import Path

import pytest
from faults import FaultyFileSystem
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spectral_alloc.cold_store import ColdStore, segment_of
from spectral_alloc.errors import CorruptFrameError

DISK_LIMIT_BYTES = 20_000
FRAMES = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5)
ERRORS = st.sampled_from(
    [OSError(errno.EIO, "injected"), OSError(errno.ENOSPC, "injected"), KeyboardInterrupt()]
)


class ColdStoreMachine(RuleBasedStateMachine):
    """The model maps place -> frame; a place is live in the store exactly when it is in the model."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.disk = FaultyFileSystem()
        self.store = ColdStore(self.directory.name, DISK_LIMIT_BYTES, self.disk, segment_bytes=500)
        self.model: dict[int, bytes] = {}
        self.used_places: set[int] = set()

    def append(self, frames: list[bytes], moving: bool = False) -> None:
        """Append and remember; a place is never given twice."""
        places = self.store.append(frames, moving=moving)
        assert self.used_places.isdisjoint(places)
        self.used_places.update(places)
        self.model.update(zip(places, frames, strict=True))

    @rule(frames=FRAMES)
    def append_or_refuse(self, frames: list[bytes]) -> None:
        """An append succeeds, or is refused because of the limit and changes nothing."""
        before = self.store.live_bytes
        try:
            self.append(frames)
        except OSError as error:
            refusal = error
        else:
            return
        assert "disk_limit" in str(refusal)
        assert self.store.file_bytes + sum(map(len, frames)) > DISK_LIMIT_BYTES * 15 // 16
        assert self.store.live_bytes == before

    @rule(frames=FRAMES, error=ERRORS, late=st.booleans(), truncate_fails=st.integers(0, 2))
    def append_and_fail(
        self, frames: list[bytes], error: BaseException, late: bool, truncate_fails: int
    ) -> None:
        """A failing write, undone or not, changes nothing."""
        before = self.store.live_bytes
        self.disk.fail("write_at", error=error, late=late)
        self.disk.fail("truncate", error=OSError(errno.EIO, "injected"), times=truncate_fails)
        with pytest.raises((OSError, KeyboardInterrupt)):
            self.store.append(frames)
        self.store.check()
        with pytest.raises((OSError, KeyboardInterrupt)):
            self.store.append(frames)
        self.disk.heal()
        assert self.store.live_bytes == before

    @rule(frames=FRAMES, room=st.integers(0, 500))
    def append_to_a_full_disk(self, frames: list[bytes], room: int) -> None:
        """A write that is cut short by a full disk changes nothing."""
        before = self.store.live_bytes
        self.disk.disk_bytes = min(room, sum(map(len, frames)) - 1)
        with pytest.raises(OSError, match=r"No space|disk_limit"):
            self.store.append(frames)
        self.disk.heal()
        assert self.store.live_bytes == before

    @precondition(lambda self: self.model)
    @rule(data=st.data(), share=st.floats(0, 1))
    def release_some(self, data: st.DataObject, share: float) -> None:
        """Release a part of the frames, sometimes while files cannot be unlinked."""
        unlink_fails = data.draw(st.booleans())
        if unlink_fails:
            self.disk.fail("remove", error=OSError(errno.EIO, "injected"))
        places = data.draw(st.permutations(sorted(self.model)))
        for place in places[: int(share * len(places)) + 1]:
            self.store.release(place, len(self.model.pop(place)))
        self.disk.heal()

    @rule()
    def seal(self) -> None:
        """Seal the active segment."""
        self.store.seal()

    @rule(dead_fraction=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    def compact(self, dead_fraction: float) -> None:
        """Move the live frames of every victim; each victim that could be moved is gone."""
        for number in self.store.victims(dead_fraction):
            places = [place for place in self.model if segment_of(place) == number]
            refusal = self.move(places)
            if refusal is not None:
                assert "disk_limit" in str(refusal)
                return
            assert number not in self.store.victims(0)

    def move(self, places: list[int]) -> OSError | None:
        """Append these frames again and release their old places; the error if the limit is in the way."""
        try:
            for place in places:
                self.append([self.store.read(place, len(self.model[place]))], moving=True)
                self.store.release(place, len(self.model.pop(place)))
        except OSError as error:
            return error
        return None

    @rule(place=st.integers(0, 1 << 64))
    def read_nonsense(self, place: int) -> None:
        """A read beyond every segment is refused."""
        with pytest.raises(CorruptFrameError):
            self.store.read(place, 1 << 20)

    @invariant()
    def accounts_are_right(self) -> None:
        """Live bytes are those of the model, the limit holds, and the store's own invariants hold."""
        self.store.check()
        assert self.store.live_bytes == sum(map(len, self.model.values()))
        # What a failing disk refuses to give back may exceed the limit, by no more than one failed batch a
        # fault.
        assert self.store.live_bytes <= DISK_LIMIT_BYTES

    @invariant()
    def frames_are_right(self) -> None:
        """Every frame of the model is read back."""
        for place, frame in self.model.items():
            assert self.store.read(place, len(frame)) == frame

    def teardown(self) -> None:
        """Closing leaves an empty directory."""
        self.store.close()
        assert list(Path(self.directory.name).iterdir()) == []
        self.directory.cleanup()


TestColdStoreMachine = ColdStoreMachine.TestCase
