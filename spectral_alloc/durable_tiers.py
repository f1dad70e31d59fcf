"""The tiers of a durable dict: a value that the log has already leaves RAM without being written.

    HOT, clean     --digest--> COLD at its committed place
    HOT, otherwise --dumps, encode--> WARM --append--> COLD, parked until the next commit

Before a relief what is dirty is committed, so parking is left for values that were edited in place and for what happens
inside a transaction. Frames of clean entries that are WARM (prefetch brought them) go back to their places.
"""

import weakref
from collections.abc import Sequence
from contextlib import suppress
from time import sleep
from typing import TYPE_CHECKING, Any

from spectral_alloc._departure import Departure, ship
from spectral_alloc._passage import Parcel
from spectral_alloc.errors import ClosedError, CorruptFrameError
from spectral_alloc.frame import FORMULA_GROWTH_MAX
from spectral_alloc.journal import Journal
from spectral_alloc.log import Log
from spectral_alloc.log_compaction import compact_segments, compaction_victims
from spectral_alloc.stored_recipes import StoredRecipes, is_recipe
from spectral_alloc.tiers import BATCH_BYTES, Settings, Tiers
from spectral_alloc.value_form import digest_of

if TYPE_CHECKING:
    from spectral_alloc._cell import Cell
    from spectral_alloc._journal import JournalEntry
    from spectral_alloc._ledger import Ledger
    from spectral_alloc._regrow import Regrowth
    from spectral_alloc._thermal import DictCore

__all__ = ["DurableTiers"]

HELP_FROM_SHARE = 0.8  # dead bytes by live bytes from which whoever writes must help with compaction
RETURNS_PER_TURN = 1024  # values brought back before other containers have their turn
RETURNS_PER_PAUSE = 16
PAUSE_SECONDS = 0.0005


class DurableTiers(Tiers):
    """Moves the values of a durable dict between RAM and its log.

    Parameters: ``ledger``, ``settings``, ``log``; ``journal`` is set right after, since it needs the codec of the
    tiers.
    """

    store: Log
    journal: Journal

    def __init__(self, ledger: "Ledger", settings: Settings, log: Log) -> None:
        super().__init__(ledger, settings, log)
        self.returning: list[Cell] = []

    def serve(self, journal: Journal) -> None:
        """Take orders from a journal: from now on it decides which frames on disk are dead."""
        self.journal = journal
        self.codec.formula_growth_max = None if journal.form.is_trusted else FORMULA_GROWTH_MAX
        self.consult(journal)
        # Weakly: the collector does not look into the ledger, which the journal refers to.
        reference = weakref.ref(journal)

        def release(place: int, frame_bytes: int) -> None:
            living = reference()
            if living is not None:
                living.release(place, frame_bytes)

        self._serve(release)
        own = weakref.WeakMethod(self.after_commit)

        def on_written(may_wait: bool) -> None:
            after_commit = own()
            if after_commit is not None:
                after_commit(may_wait)

        journal.on_written = on_written

    def serve_recipes(self, regrowth: "Regrowth | None") -> None:
        """Let recipes stand in the log for values from now on."""
        super().serve_recipes(regrowth)
        if regrowth is not None:
            self.journal.recipes = StoredRecipes(regrowth, self.journal.form, self)

    # down -----------------------------------------------------------------------------------------------------------

    def relieve(self) -> None:
        """Let values leave until the ledger is within its limit, or nothing can leave any more."""
        self.journal.commit_for_relief()
        super().relieve()

    def _charge_buffers(self) -> None:
        """What the journal remembers is charged in place of shadows, which a durable dict has no need of."""
        self.ledger.charge_buffers(self.codec.resident_bytes + self.journal.resident_bytes + self._recipe_bytes())

    def _send_down(self, departure: Departure, parcel: Parcel) -> None:
        """A clean value leaves for its committed place; any other as in an ephemeral dict."""
        journal, cell = self.journal, departure.cell
        entry = journal.entry_of(cell)
        is_kept = entry is not None and journal.is_clean(entry) and (entry.flat or self._is_unchanged(departure, entry))
        if entry is None or not is_kept:
            super()._send_down(departure, parcel)
        elif departure.to_cold(entry.place, entry.frame_bytes):
            journal.let_go(cell)

    def _is_unchanged(self, departure: Departure, entry: "JournalEntry") -> bool:
        """Is the value still what the log has? If not, the journal hears of the edit."""
        try:
            parts, _ = self._dumps(departure.value, departure.flags)
        except Exception:
            return False  # the general way meets it again, and knows what to do
        if digest_of(parts) == entry.digest:
            return True
        self.journal.edited[entry] = None
        return False

    def _send_parcel(self, parcel: Parcel) -> None:
        """Park the frames of values that take no more RAM than their frames."""
        batch = parcel.unpack()
        frames = [frame for _, frame in batch]
        places = self._append(frames)
        if places is None:
            for departure, _ in batch:
                departure.hold()
            return
        self.journal.park(places, frames)
        for (departure, frame), place in zip(batch, places, strict=True):
            if not departure.to_cold(place, len(frame)):
                self.journal.release(place, len(frame))

    def spill(self, size_bytes: int, only: "Cell | None" = None) -> bool:
        """Let warm frames leave RAM, ``size_bytes`` of them if there are; False if the disk refuses."""
        journal = self.journal
        while size_bytes > 0:
            shipment = ship(self.ledger, min(size_bytes, BATCH_BYTES), only)
            if shipment is None:
                return True
            before = self.ledger.warm_bytes
            entries = [journal.entry_of(cell) for cell in shipment.cells]
            clean = [entry is not None and journal.is_clean(entry) for entry in entries]
            unwritten = [frame for frame, is_clean in zip(shipment.frames, clean, strict=True) if not is_clean]
            parked = self._append(unwritten) if unwritten else []
            if parked is None:
                return False
            journal.park(parked, unwritten)
            fresh = iter(parked)
            places = [
                entry.place if is_clean and entry is not None else next(fresh)
                for entry, is_clean in zip(entries, clean, strict=True)
            ]
            cells = list(shipment.cells)
            for place, frame_bytes in shipment.commit(places):
                journal.release(place, frame_bytes)
            for cell in cells:
                journal.let_go(cell)
            size_bytes -= max(1, before - self.ledger.warm_bytes)
            if only is not None:
                break
        return True

    # up -------------------------------------------------------------------------------------------------------------

    def _dumps(self, value: Any, flags: int) -> tuple[list[Any], Sequence[int]]:
        return self.journal.form.dumps(value)

    def general_value(self, frame: bytes, cell: "Cell", origin: tuple[Any, ...], key: object) -> Any:
        """The value of a frame that is no graph stream; what is on disk is known from now on, by its digest."""
        parts = self.codec.decode(frame)
        if is_recipe(parts):
            value = self._recipes().value_of(parts, cell, key, origin)
            parts, _ = self.journal.form.dumps(value)
        else:
            value = self.journal.form.loads(parts)
        self.journal.adopt(cell, origin, digest_of(parts))
        return value

    def _recipes(self) -> StoredRecipes:
        container = self.journal.container()
        if self.journal.recipes is None and container is not None:
            container._grown()
        assert self.journal.recipes is not None
        return self.journal.recipes

    def _warm_up(self, cell: "Cell", origin: tuple[Any, ...], frame: bytes) -> bool:
        self.journal.adopt(cell, origin, digest_of(self.codec.decode(frame)))
        return super()._warm_up(cell, origin, frame)

    # in the background ------------------------------------------------------------------------------------------------

    @property
    def has_backlog(self) -> bool:
        """Is there work for the background writer?"""
        return bool(self.returning) or self.codec.train_due or (not self.store.is_readonly and self.wants_compaction)

    @property
    def wants_compaction(self) -> bool:
        """Are there segments whose moving pays?"""
        return bool(compaction_victims(self.store))

    def work(self, core: "DictCore[Any, Any]") -> None:
        """One turn of the background writer: bring back what was in RAM before the last close, compact."""
        for turn in range(RETURNS_PER_TURN):
            if not self.returning or self.ledger.excess_bytes() >= 0:
                self.returning.clear()
                break
            self._bring_back(self.returning.pop())
            if turn % RETURNS_PER_PAUSE == 0:
                sleep(PAUSE_SECONDS)  # the program's own reads come first
        if self.returning:
            self.on_backlog()
        if self.codec.train_due:
            self.codec.train()
            self._charge_buffers()
        if not self.store.is_readonly and self.wants_compaction:
            self.compact(core)

    def _bring_back(self, cell: "Cell") -> None:
        if self.ledger.whereabouts(cell)[0] == "cold":
            with suppress(CorruptFrameError, OSError, KeyError):  # whoever reads it will hear of it
                self.load(cell, None, insist=True)

    def after_commit(self, may_wait: bool) -> None:
        """Much was written: have the background compact, or help where it falls behind those who write.

        ``may_wait``: the caller has no lock that a compaction under way could need.
        """
        log, core = self.store, self.journal.container()
        if core is None or self._compacting._is_owned():  # type: ignore[attr-defined]  # what Condition asks
            return
        if self.wants_compaction:
            self.on_backlog()
            if log.dead_bytes > HELP_FROM_SHARE * log.live_bytes and self._compacting.acquire(blocking=may_wait):
                try:
                    self.compact(core)
                finally:
                    self._compacting.release()

    def _compact(self, core: "DictCore[Any, Any]") -> None:
        """Move what is live out of the segments whose moving pays, and settle it, so that the files can go."""
        self.journal.commit_for_relief()
        try:
            self.compact_segments(core, set(compaction_victims(self.store)))
        except ClosedError:
            pass  # by another thread meanwhile: what was copied counts, what was not is where it was
        except OSError as error:
            self._note("compaction failed", error, "Nothing is lost, and the files stay as large as they are")

    def compact_segments(self, core: "DictCore[Any, Any]", victims: set[int]) -> None:
        """Move what is live out of these segments."""
        compact_segments(core, self.journal, self.store, victims)

    def after_fork_in_child(self) -> None:
        """The log belongs to the parent."""
        super().after_fork_in_child()
        self.journal.after_fork_in_child()
