"""The journal of a durable dict: what was written since the last commit, and how it gets into the log.

Words are those of _journal.pyx and log.py. The modes:

    durability    d[k] = v returns when                     lost by a crash
    "none"        it is noted in RAM                        what no sync(), close() or transaction() covered
    "interval"    it is noted in RAM                        ... and is younger than about one interval
    "always"      it is settled on the disk                 nothing that was acknowledged

Every commit is one batch of the log: after a crash the dict is as it was at one moment.

Threads: any. A commit holds the journal's lock while it serialises, so commits do not overlap; reads and, but for
"always", writes go on meanwhile. Cost: a commit is proportional to what was written since the last, sync() also to
the live values that may have been edited in place.
"""

import errno
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spectral_alloc import _log
from spectral_alloc._iteration import all_cells
from spectral_alloc._journal import UNKNOWN, JournalCore, JournalEntry
from spectral_alloc.clock import Clock
from spectral_alloc.committer import committer
from spectral_alloc.file_system import OpenFile
from spectral_alloc.frame import FrameCodec
from spectral_alloc.log import Log, Record
from spectral_alloc.value_form import ValueForm, digest_of, is_flat

if TYPE_CHECKING:
    from spectral_alloc.stored_recipes import StoredRecipes
    from spectral_alloc.thermal_dict import ThermalDict

__all__ = ["DURABILITY", "Journal"]

DURABILITY = ("none", "interval", "always")
ABSENT: Any = object()


class Journal(JournalCore):
    """Makes the writes of one dict durable.

    Parameters: container (the dict), log, codec, form, durability (one of DURABILITY), interval_seconds, clock.
    """

    def __init__(
        self,
        container: "ThermalDict[Any, Any]",
        log: Log,
        codec: FrameCodec,
        form: ValueForm,
        durability: str,
        interval_seconds: float,
        clock: Clock,
    ) -> None:
        self.container = weakref.ref(container)
        self.log, self.codec, self.form = log, codec, form
        self.durability, self.interval_seconds, self.clock = durability, interval_seconds, clock
        self.is_readonly = log.is_readonly
        self.is_eager = durability != "none" and not self.is_readonly
        self.is_strict = durability == "always" and not self.is_readonly
        self.lock: OpenFile | None = None
        self.recipes: StoredRecipes | None = None
        self.commit_count = 0
        self.relief_failure_count = 0
        self._lock = threading.RLock()
        self._committing = 0
        self._owner = 0
        self._due: float | None = None
        self._local = threading.local()
        self._serve(container._ledger)

    # before a write -------------------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """A write to a dict that can only be read."""
        raise OSError(errno.EROFS, "the durable dict can only be read here", self.log.directory)

    def check_key(self, key: object) -> None:
        """Raise TypeError for a key that cannot be stored."""
        self.form.key_bytes(key)

    def check_recipe(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Raise TypeError for a recipe that cannot be stored."""
        if self.is_readonly:
            self.refuse()
        assert self.recipes is not None
        self.recipes.check(function, args)

    def remember(self, key: object) -> None:
        """Keep what a key had before this write, in case it must be undone."""
        container = self.container()
        is_owner = self._owner == threading.get_ident()
        undo = self.undo if is_owner else self._own_undo() if self.is_strict else None
        if undo is not None and container is not None and key not in undo:
            undo[key] = container._peek(key, ABSENT)

    def admit_clear(self) -> None:
        """The dict is about to be emptied."""
        if self.is_readonly:
            self.refuse()
        container = self.container()
        if self.undo is not None and self._owner == threading.get_ident() and container is not None:
            for key in list(container):
                self.remember(key)

    def _own_undo(self) -> dict[Any, Any]:
        """This thread's writes since its last acknowledged one."""
        if not hasattr(self._local, "undo"):
            self._local.undo = {}
        undo: dict[Any, Any] = self._local.undo
        return undo

    # after a write --------------------------------------------------------------------------------------------------

    def wrote(self) -> None:
        """A write was noted: make it durable now, or see to it that this happens in time."""
        if self.durability == "interval":
            self._arm()
        elif self._owner != threading.get_ident():
            try:
                self.settle()
            except BaseException:
                self._undo(self._own_undo())
                raise
            finally:
                self._local.undo = {}

    def _arm(self) -> None:
        now = self.clock.monotonic()
        if self._due is None:
            self._due = now + self.interval_seconds
            if self.clock.runs_by_itself:
                committer.submit(weakref.ref(self), self._due)
        elif now >= self._due and not self.clock.runs_by_itself and self._owner != threading.get_ident():
            self.settle()

    def settle(self) -> None:
        """Commit what was written and settle it on the disk."""
        self._due = None
        self.commit()
        self._settle_log()

    def _settle_log(self) -> None:
        if self.log.suspects:
            self.rewrite_suspects()
        self.log.sync()

    def rewrite_suspects(self) -> None:
        """After a failed fsync: write again what it should have covered."""
        container = self.container()
        if container is not None:
            compact = getattr(container._tiers, "compact_segments")  # noqa: B009  # only durable tiers have it
            compact(container, set(self.log.suspects))

    def _undo(self, undo: dict[Any, Any]) -> None:
        """Give the dict back what these keys had; a key that was deleted comes back at the end of the order."""
        container = self.container()
        if container is None:
            return
        with self._lock:
            before, self._owner, self.undo = self._owner, threading.get_ident(), None
            try:
                for key, value in reversed(undo.items()):
                    if value is not ABSENT:
                        container[key] = value
                    elif key in container:
                        del container[key]
            finally:
                self._owner = before

    # commits --------------------------------------------------------------------------------------------------------

    def commit(self, everything: bool = False) -> None:
        """Write what changed since the last commit as one batch; with ``everything`` also what was edited in place.

        Raises OSError if the disk refuses (all stays as it was, and the next commit tries again), TypeError or
        PicklingError for values that cannot be stored (all others are committed).
        """
        thread = threading.get_ident()
        if self.is_readonly or thread in (self._committing, self._owner):
            return
        if self.recipes is not None:
            self.recipes.prove(list(self.dirty))
        with self._lock:
            self._committing = thread
            try:
                self._commit_batch(everything)
            finally:
                self._committing = 0

    def commit_for_relief(self) -> None:
        """Before values leave RAM: commit, so that they need not be parked; not worth waiting for another thread."""
        if not self.dirty or self._owner:
            return
        if self.recipes is not None:
            self.recipes.prove(list(self.dirty))  # user code: not under the lock
        if not self._lock.acquire(blocking=False):
            return
        try:
            self.commit()
        except (OSError, TypeError, ValueError, pickle.PicklingError):
            self.relief_failure_count += 1  # sync() raises it again
        finally:
            self._lock.release()

    def _commit_batch(self, everything: bool) -> None:
        gathered = self.gather(everything)
        batch = _Batch(self, gathered)
        try:
            if everything:
                batch.add_edited()
            places = self.log.commit(batch.records())
        except BaseException:
            self.give_back([entry for entry, _, _ in batch.gathered])
            raise
        batch.finish(places)
        self.commit_count += bool(places)
        if batch.failures:
            self.give_back([entry for entry, _ in batch.failures])
            entry, error = batch.failures[0]
            error.add_note(f"the value of key {entry.key!r} is not durable; {len(batch.failures)} such in this commit")
            raise error

    def sync(self) -> None:
        """Commit everything, edits in place too, and settle it."""
        self._due = None
        self.commit(everything=True)
        if not self.is_readonly:
            self._settle_log()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep commits from happening meanwhile."""
        with self._lock:
            yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are one batch; an exception undoes them in memory."""
        if self.is_readonly:
            self.refuse()
        if self._owner == threading.get_ident():
            raise RuntimeError("a transaction of this thread is open already")
        with self._lock:
            self.commit()
            undo: dict[Any, Any] = {}
            self.undo, self._owner = undo, threading.get_ident()
            try:
                yield
                self.undo, self._owner = None, 0
                self.commit()
                self._settle_log()
            except BaseException:
                self._undo(undo)
                raise
            finally:
                self.undo, self._owner = None, 0

    # keys and places -------------------------------------------------------------------------------------------------

    def release(self, place: int, frame_bytes: int) -> None:
        """The ledger needs a frame on disk no more; committed ones stay until a commit replaces them."""
        if self.parked.pop(place, None) is not None:
            self.log.release(place, frame_bytes)

    def park(self, places: list[int], frames: list[bytes]) -> None:
        """Frames were written without a commit."""
        for place, frame in zip(places, frames, strict=True):
            self.parked[place] = len(frame)

    def resolve_keys(self, entries: list[JournalEntry]) -> None:
        """Give entries that were only read their keys. Cost: a walk over the dict, if there are any."""
        container = self.container()
        nameless = {id(entry.cell): entry for entry in entries if entry.key is UNKNOWN}
        if nameless and container is not None:
            for key, cell in all_cells(container):
                if id(cell) in nameless:
                    nameless[id(cell)].key = key

    def close(self) -> None:
        """Commit and settle everything."""
        if os.getpid() == self.log._process_id and not self.is_readonly:
            self.sync()

    def after_fork_in_child(self) -> None:
        """The log belongs to the parent: the child can only read."""
        self._lock = threading.RLock()
        self._local = threading.local()
        # The parent's lock ends with the parent, not with its children.
        self.lock = None
        self._committing = self._owner = 0
        self.undo, self._due = None, None
        self.is_readonly, self.is_eager, self.is_strict = True, False, False


class _Batch:
    """One commit: turns gathered entries into records, and takes note of what became of each."""

    def __init__(self, journal: Journal, gathered: list[tuple[JournalEntry, str, Any]]) -> None:
        self.journal, self.gathered = journal, gathered
        self.failures: list[tuple[JournalEntry, Exception]] = []
        self.outcomes: list[tuple[JournalEntry, bool, int, bytes | None, bool, int]] = []
        self.same: list[JournalEntry] = []

    def add_edited(self) -> None:
        """Compare every live value that may have been edited in place with what was committed."""
        journal = self.journal
        found = []
        for entry, value in journal.comparable():
            if is_flat(value):
                entry.flat = True
                continue
            try:
                parts, _ = journal.form.dumps(value)
            except RecursionError:
                raise
            except Exception:
                found.append((entry, "live", value))
                continue
            if digest_of(parts) != entry.digest:
                found.append((entry, "live", value))
        self.gathered = [*self.gathered, *found]
        journal.resolve_keys([entry for entry, _, _ in self.gathered])

    def records(self) -> Iterator[Record]:
        """The records of the batch, made one by one."""
        for entry, state, thing in self.gathered:
            if state == "gone":
                if entry.frame_bytes:
                    self.outcomes.append((entry, True, 0, None, False, 0))
                    yield Record(_log.TOMBSTONE, self.journal.form.key_bytes(entry.key), b"")
                continue
            try:
                record = self.record(entry, state, thing)
            except (OSError, MemoryError):
                raise
            except Exception as error:
                self.failures.append((entry, error))
                continue
            if record is not None:
                yield record

    def record(self, entry: JournalEntry, state: str, thing: Any) -> Record | None:
        """The record of one value, None if the log has it already."""
        journal = self.journal
        parked, flat, recipe = 0, False, None
        if state == "live":
            flat = is_flat(thing)
            parts, item_sizes = journal.form.dumps(thing)
            digest = None if flat else digest_of(parts)
            recipe = journal.recipes.frame_for(entry.cell, thing) if journal.recipes is not None else None
            is_committed = digest is not None and digest == entry.digest and entry.frame_bytes
            if is_committed and entry.is_recipe == (recipe is not None):
                self.same.append(entry)
                return None
            frame = journal.codec.encode(parts, item_sizes) if recipe is None else recipe[0]
        else:
            if state == "parked":
                parked = thing[0]
                if parked == entry.place and entry.frame_bytes:
                    self.same.append(entry)
                    return None
            frame = thing if state == "warm" else journal.log.read(*thing)
            parts = journal.codec.decode(frame)
            digest = digest_of(parts)
            flat = entry.cell is not None and entry.flat
        needs_trust = journal.form.is_pickled(parts) if recipe is None else recipe[1]
        flags = (_log.FLAT if flat else 0) | (_log.PICKLED if needs_trust else 0)
        key = journal.form.key_bytes(entry.key)
        if entry.frame_bytes and not entry.birth:
            entry.birth = journal.log.birth_at(entry.place)
        self.outcomes.append((entry, False, len(frame), digest, flat, parked))
        entry.is_recipe = recipe is not None
        kind = _log.PUT if recipe is None else _log.REGROWN
        return Record(kind, key, frame, flags, entry.birth if entry.frame_bytes else 0)

    def finish(self, places: list[int]) -> None:
        """All is in the log."""
        journal = self.journal
        for entry in self.same:
            journal.unchanged(entry)
        for (entry, is_removal, frame_bytes, digest, flat, parked), place in zip(self.outcomes, places, strict=True):
            if is_removal:
                dead = journal.removal_committed(entry)
            else:
                dead = journal.committed(entry, place, frame_bytes, digest, flat, parked)
                if parked and journal.parked.pop(parked, None) is not None:
                    journal.log.release(parked, frame_bytes)
            if dead is not None:
                journal.log.release(*dead)
        for entry, state, _ in self.gathered:
            if state == "gone" and entry.in_flight:
                journal.removal_committed(entry)
