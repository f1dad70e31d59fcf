"""The methods of ThermalDict that are about durability."""

import errno
import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from spectral_alloc import durable
from spectral_alloc.journal import Journal

if TYPE_CHECKING:
    from spectral_alloc._journal import JournalCore
    from spectral_alloc._ledger import Ledger
    from spectral_alloc.tiers import Tiers

__all__ = ["DurableMethods"]


class DurableMethods:
    """Added to ThermalDict, which has the rest."""

    __slots__ = ()

    if TYPE_CHECKING:
        _journal: JournalCore | None

        @property
        def _ledger(self) -> Ledger: ...

        @property
        def _tiers(self) -> Tiers: ...

    def sync(self) -> None:
        """Make everything durable, edits in place too; in a dict without a path, write compressed values to disk.

        Raises: OSError if the disk refuses, TypeError or PicklingError for a value that cannot be stored. Cost: what
        was written is written, and live values that may have been edited are serialised and compared.
        """
        journal = self._journal
        if isinstance(journal, Journal):
            journal.sync()
        else:
            self._tiers.spill(self._ledger.warm_bytes)

    def transaction(self) -> AbstractContextManager[None]:
        """Return a context in which all writes are one: after a crash all are there or none, an exception undoes them.

        Raises: OSError when the dict has no path or can only be read. See docs/durable.md for other threads.

        >>> import tempfile; from spectral_alloc import ThermalDict
        >>> with tempfile.TemporaryDirectory() as t, ThermalDict.open(t + "/d") as d:
        ...     with d.transaction():
        ...         d["from"], d["to"] = 1, 2
        """
        return self._durable_journal().transaction()

    def snapshot(self, path: "str | os.PathLike[str]") -> None:
        """Write a durable copy to a directory that does not exist yet, while the dict is in use.

        Raises: OSError, FileExistsError. Cost: a sync(), and a copy of the files.
        """
        self._durable_journal()
        durable.snapshot(self, os.fspath(path))  # type: ignore[arg-type]  # self is a ThermalDict

    def _durable_journal(self) -> Journal:
        journal = self._journal
        if not isinstance(journal, Journal):
            raise OSError(errno.EINVAL, "only a dict that was opened with a path is durable")
        return journal
