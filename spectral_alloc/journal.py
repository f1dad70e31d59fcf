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
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spectral_alloc import _log
from spectral_alloc._commit import Commit
from spectral_alloc._iteration import all_cells
from spectral_alloc._journal import UNKNOWN, JournalEntry
from spectral_alloc._journal_writes import ABSENT, Write, WritingJournal
from spectral_alloc.clock import Clock
from spectral_alloc.committer import committer
from spectral_alloc.file_system import OpenFile
from spectral_alloc.frame import FrameCodec
from spectral_alloc.log import Log
from spectral_alloc.log_dictionaries import COPIES, dictionary_frame
from spectral_alloc.value_form import ValueForm, digest_of

if TYPE_CHECKING:
    from spectral_alloc.stored_recipes import StoredRecipes
    from spectral_alloc.thermal_dict import ThermalDict

__all__ = ["DURABILITY", "Journal"]

ENTRY_BYTES = 80 + 32  # a JournalEntry, and the number that `entries` knows it by
LOOK_EVERY_BYTES = 1 << 20  # written between two looks at what is dead
TRAIN_FOR_ENTRIES = 2048  # still to be written, for which a commit waits until a dictionary is trained
DURABILITY = ("none", "interval", "always")


class Journal(WritingJournal):
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
        #: Numbers of the dictionaries that the log has.
        self.logged: set[int] = set()
        self.commit_count = 0
        self.relief_failure_count = 0
        self._lock = threading.RLock()
        self._committing = 0
        self._owner = 0
        self._due: float | None = None
        self.on_backlog: Callable[[], None] = lambda: None
        #: Called after commits that wrote much, without the lock where that is possible; told so.
        self.on_written: Callable[[bool], None] = lambda may_wait: None
        self._looked_at_bytes = 0
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

    def remember(self, key: object) -> Write | None:
        """Keep what a key had before this write: a transaction in its ``undo``, else in the Write returned."""
        container = self.container()
        is_owner = self._owner == threading.get_ident()
        if container is None or not (is_owner or self.is_strict):
            return None
        own = self.own_key(container, key)
        key = key if own is UNKNOWN else own
        if not is_owner:
            return Write(key, container._peek(key, ABSENT))
        if self.undo is not None and key not in self.undo:
            self.undo[key] = container._peek(key, ABSENT)
        return None

    def admit_clear(self) -> list[Write]:
        """The dict is about to be emptied: ``remember`` for all its keys."""
        if self.is_readonly:
            self.refuse()
        container = self.container()
        if container is None or not (self.is_strict or self.undo is not None):
            return []
        return [write for write in map(self.remember, list(container)) if write is not None]

    # after a write --------------------------------------------------------------------------------------------------

    def wrote(self, writes: list[Write]) -> None:
        """A write was noted: make it durable now, or see to it that this happens in time."""
        if self.durability == "interval":
            self._arm()
        elif self._owner != threading.get_ident():
            try:
                self.settle()
            except BaseException:
                container = self.container()
                if container is not None:
                    self.withdraw(container, writes)
                raise
            self.acknowledge(writes)

    def _arm(self) -> None:
        now, due = self.clock.monotonic(), self._due
        if due is None:
            self._due = due_seconds = now + self.interval_seconds  # a commit of another thread may disarm at once
            if self.clock.runs_by_itself:
                self.is_armed = True
                try:
                    committer.submit(weakref.ref(self), due_seconds)
                except BaseException:
                    self._disarm()  # the next write tries again
                    raise
        elif now >= due and not self.clock.runs_by_itself and self._owner != threading.get_ident():
            self.settle()

    def _disarm(self) -> None:
        """The next write is heard of again: it may come too late for the commit that begins."""
        self._due, self.is_armed = None, False

    def settle(self) -> None:
        """Commit what was written and settle it on the disk."""
        self._disarm()
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
        self._after_commit()

    def _after_commit(self) -> None:
        """Now and then let somebody look whether the log has grown too long."""
        written = self.log.written_bytes
        if written - self._looked_at_bytes >= LOOK_EVERY_BYTES:
            self._looked_at_bytes = written
            self.on_written(not self._lock._is_owned())  # type: ignore[attr-defined]  # what Condition asks

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
        self._after_commit()

    def _commit_batch(self, everything: bool) -> None:
        general = GeneralWay(self)
        commit = Commit(self, self.codec.express, general, everything)
        try:
            if everything:
                commit.add_edited()
            dead = commit.finish(self.log.write(commit))
        except BaseException:
            commit.cancel()  # not left to its end: the traceback may keep it
            raise
        self.logged |= general.found_new
        for segment, dead_bytes in dead:
            self.log.release_bytes(segment, dead_bytes)
        self.commit_count += bool(commit.written_count)
        if self.codec.train_due:
            self.on_backlog()
        if commit.failures:
            entry, error = commit.failures[0]
            error.add_note(f"the value of key {entry.key!r} is not durable; {len(commit.failures)} such in this commit")
            raise error

    def sync(self) -> None:
        """Commit everything, edits in place too, and settle it."""
        self._disarm()
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

    @property
    def resident_bytes(self) -> int:
        """RAM of what is remembered of entries in RAM."""
        tables = sys.getsizeof(self.entries) + sys.getsizeof(self.dirty) + sys.getsizeof(self.parked)
        return tables + len(self.entries) * ENTRY_BYTES

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
        # The parent's lock ends with the parent, not with its children.
        self.lock = None
        self._committing = self._owner = 0
        self.undo = None
        self._disarm()
        self.is_readonly, self.is_eager, self.is_strict = True, False, False


class GeneralWay:
    """What a commit (_commit.pyx) asks about values and keys that are not plain builtin data."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.key_bytes = journal.form.key_bytes
        self.has_recipes = journal.recipes is not None
        self.birth_at = journal.log.birth_at
        self.found_new: set[int] = set()

    def train(self, left_count: int) -> None:
        """Train a dictionary now, if that is due and ``left_count`` entries are worth the wait."""
        if left_count >= TRAIN_FOR_ENTRIES and self.journal.codec.train_due:
            self.journal.codec.train()

    def new_dictionaries(self) -> list[tuple[int, bytes]]:
        """Number and frame of each dictionary that the log does not have, in as many copies as it shall have."""
        dictionaries = self.journal.codec.dictionaries
        new = set(dictionaries.ids) - self.journal.logged - self.found_new
        self.found_new |= new
        return [(number, dictionary_frame(dictionaries, number)) for number in sorted(new) for _ in range(COPIES)]

    def recipe_of(self, entry: JournalEntry, value: Any) -> tuple[bytes, int] | None:
        """Frame and flags of a record that says how to get a live value, if a recipe was proved to give it."""
        assert self.journal.recipes is not None
        found = self.journal.recipes.frame_for(entry.cell, value)
        return None if found is None else (found[0], _log.PICKLED if found[1] else 0)

    def is_same(self, entry: JournalEntry, value: Any) -> bool:
        """Is a live value what was committed? A value that cannot be stored is not: the commit then says why."""
        try:
            parts, _ = self.journal.form.dumps(value)
        except RecursionError:
            raise
        except Exception:
            return False
        return digest_of(parts) == entry.digest

    def live(self, entry: JournalEntry, value: Any) -> tuple[bytes, bytes, int] | None:
        """Frame, digest and flags of a live value, None if the log has it already."""
        parts, item_sizes = self.journal.form.dumps(value)
        digest = digest_of(parts)
        if digest == entry.digest and entry.frame_bytes:
            return None
        return self.frame_of(parts, item_sizes), digest, self.flags_of(parts)

    def stored(self, entry: JournalEntry, thing: Any, frame_bytes: int) -> tuple[bytes, bytes, int]:
        """The same for a value that is a frame, or at a place of the log."""
        frame = self.journal.log.read(thing, frame_bytes) if frame_bytes else thing
        parts = self.journal.codec.decode(frame)
        return frame, digest_of(parts), self.flags_of(parts)

    def frame_of(self, parts: Sequence[Any], item_sizes: Sequence[int]) -> bytes:
        """The frame of serialised parts."""
        return self.journal.codec.encode(parts, item_sizes)

    def flags_of(self, parts: Sequence[Any]) -> int:
        """The flags of a record with such a value."""
        return _log.PICKLED if self.journal.form.is_pickled(parts) else 0
