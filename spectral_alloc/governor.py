"""The governor: one memory limit for the process, shared by all containers that have none of their own.

Words: the *process budget* is what set_memory_limit sets; a *container* is a ThermalDict or a SpectralMemory; a
container with a memory limit of its own has a budget below the process budget once the caller has set one, and
stands alone before that.

Invariant: every live container is registered under a key that only its own finaliser removes.

Threads: any. Cost: a container registers once; a relief of the shared budget looks at every container.
"""

import os
import weakref
from time import monotonic
from typing import Protocol

from spectral_alloc._cell import Budget
from spectral_alloc.allocator import small_allocation_bytes
from spectral_alloc.limits import available_memory_bytes, resident_bytes
from spectral_alloc.units import parse_bytes
from spectral_alloc.writer import Writer

__all__ = ["Governor", "get_memory_limit", "governor", "set_memory_limit"]

LARGER = 1.25  # times one's own bytes: from there another container gives way first
SLACK_SECONDS = 0.02  # between two measurements ...
SLACK_COST_TIMES = 100  # ... or so many times what one takes: glibc walks all free pieces of its heap for it
SLACK_STEP = 0.5  # of the way to the measured slack
SLACK_SHARE = 0.5  # of the containers' bytes: the most that is put down as slack
SLACK_TOLERANCE = 1.25  # times what the containers may hold can the process grow before it counts


class _Ledger(Protocol):
    """What the governor needs to know of what a container uses."""

    @property
    def used_bytes(self) -> int: ...
    @property
    def counted_bytes(self) -> int: ...
    @property
    def budget(self) -> Budget: ...
    def excess_bytes(self, slack: int = 0) -> int: ...
    def charge_slack(self, slack_bytes: int) -> None: ...


class _Relievable(Protocol):
    """What makes room."""

    def relieve(self) -> None: ...


class _Container(Protocol):
    """What the governor needs of a container."""

    @property
    def _ledger(self) -> _Ledger: ...
    @property
    def _tiers(self) -> _Relievable: ...
    def _join(self, parent: Budget) -> None: ...
    def _settle(self) -> None: ...
    def _work(self) -> None: ...
    def _after_fork_in_child(self) -> None: ...


class Governor:
    """Owns the process budget, the registry of containers and the background writer."""

    def __init__(self) -> None:
        self.writer = Writer()
        self._containers: dict[int, weakref.ref[_Container]] = {}
        self._budget: Budget | None = None
        self._is_set = False
        self._slack_bytes = 0.0
        self._next_slack_seconds = 0.0
        self._base_bytes: tuple[int, int] | None = None

    @property
    def budget(self) -> Budget:
        """The process budget; its default is half of what the process may use, read when it is first asked for."""
        if self._budget is None:
            self._budget = Budget(available_memory_bytes().bytes // 2)
        return self._budget

    def own_budget(self, limit_bytes: int) -> Budget:
        """A budget for one container, below the process budget if the caller has set that."""
        return Budget(limit_bytes, self.budget if self._is_set else None)

    def set_limit(self, limit_bytes: int | None) -> None:
        """Set the process budget, None for the default, and let every container that shares it make room."""
        default = available_memory_bytes().bytes // 2 if limit_bytes is None else limit_bytes
        self.budget.limit_bytes = default
        if limit_bytes is not None and not self._is_set:
            self._is_set = True
            for container in self.containers():
                container._join(self.budget)
        for container in self.containers():
            container._settle()

    def register(self, container: _Container) -> weakref.ref[_Container]:
        """Enter a new container."""
        reference = weakref.ref(container, self.withdraw)
        self._containers[id(reference)] = reference
        return reference

    def withdraw(self, reference: weakref.ref[_Container]) -> None:
        """Take out a container that was closed or deallocated."""
        self._containers.pop(id(reference), None)

    def containers(self) -> list[_Container]:
        """All live containers, oldest first."""
        references = list(self._containers.values())
        return [container for reference in references if (container := reference()) is not None]

    def relieve_larger(self, container: _Container) -> None:
        """Before a container gives way itself, let those give way that hold clearly more of the same budget."""
        if len(self._containers) > 1:
            self._relieve(container, container._ledger.used_bytes * LARGER)

    def relieve_others(self, container: _Container) -> None:
        """After a container gave what it could, let the others of the same budget make room."""
        if len(self._containers) > 1:
            self._relieve(container, 0)

    def _relieve(self, container: _Container, above_bytes: float) -> None:
        """Relieve those that share a budget with ``container`` and use more than so much, the largest first."""
        budget = container._ledger.budget
        others = [other for other in self.containers() if other is not container]
        sharing = [
            other
            for other in others
            if shares(other._ledger.budget, budget) and other._ledger.used_bytes > above_bytes
        ]
        sharing.sort(key=lambda other: other._ledger.used_bytes, reverse=True)
        for other in sharing:
            if container._ledger.excess_bytes() <= 0:
                return
            other._tiers.relieve()

    def put_down_slack(self) -> None:
        """Charge what the allocators hold beyond the containers' own bytes to the containers, in proportion, slowly.

        Arenas and heap go back to the system only where they are empty, and keys that stay keep parts of them that
        values have left. What is free there the next values use, so to let more values leave gains nothing while the
        process has not outgrown the limits themselves by SLACK_TOLERANCE. Other memory of the program is in the same
        places, so the slack is bounded by a part of what the containers hold, and by the growth of resident memory. It
        is a reason for values to leave, so a container whose values have left is charged no more than it has room for.
        """
        now = monotonic()
        if now < self._next_slack_seconds:
            return
        ledgers = [container._ledger for container in self.containers()]
        total = sum(ledger.counted_bytes for ledger in ledgers)
        resident = resident_bytes()
        if total == 0 or self._base_bytes is None:
            self._base_bytes = small_allocation_bytes() - total, resident - total
        allowed = [ledger.used_bytes - ledger.excess_bytes() for ledger in ledgers]
        expected = sum(max(ledger.counted_bytes, most) for ledger, most in zip(ledgers, allowed, strict=True))
        grown = resident - self._base_bytes[1]
        if grown > SLACK_TOLERANCE * expected:
            grown = min(grown, small_allocation_bytes() - self._base_bytes[0])
        target = max(0, grown / SLACK_TOLERANCE - expected)
        self._slack_bytes += (target - self._slack_bytes) * SLACK_STEP
        self._slack_bytes = min(self._slack_bytes, SLACK_SHARE * total)
        for ledger in ledgers:
            ledger.charge_slack(int(self._slack_bytes * ledger.counted_bytes / total) if total else 0)
        end = monotonic()
        self._next_slack_seconds = end + max(SLACK_SECONDS, SLACK_COST_TIMES * (end - now))

    def after_fork_in_child(self) -> None:
        """The child has the same containers, but none of the parent's threads."""
        self.writer.after_fork_in_child()
        for container in self.containers():
            container._after_fork_in_child()


def shares(one: Budget, other: Budget) -> bool:
    """Do two containers draw on one budget?"""
    return (one.parent or one) is (other.parent or other)


governor = Governor()
os.register_at_fork(after_in_child=governor.after_fork_in_child)


def set_memory_limit(limit: int | str | None) -> None:
    """Set the memory that all containers of this process may use together.

    Parameters: ``limit`` (bytes, or text such as "1.5 GB" or "512 MiB"; None for the default, half of what the process
    may use).
    Raises: ValueError for a negative, absurd or unreadable limit, TypeError for another type; nothing has changed then.
    Cost: when the limit falls, what must leave leaves before this returns.
    Threads: safe.

    >>> import spectral_alloc
    >>> spectral_alloc.set_memory_limit("2 GB")
    >>> spectral_alloc.get_memory_limit()
    2000000000
    >>> spectral_alloc.set_memory_limit(None)
    """
    governor.set_limit(None if limit is None else parse_bytes(limit))


def get_memory_limit() -> int:
    """Return the process's memory limit in bytes.

    >>> import spectral_alloc
    >>> spectral_alloc.get_memory_limit() > 0
    True
    """
    return governor.budget.limit_bytes
