"""Plain forms of policies that weigh bytes, for benchmarks/policy.py: GreedyDual-Size-Frequency, S3-FIFO and LRU.

Each takes requests (object numbers), the capacity in bytes and the size of every object; it returns (misses, missed
bytes).
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence

Result = tuple[int, int]


def least_recently_used(requests: Sequence[int], capacity: int, sizes: Sequence[int]) -> Result:
    """LRU over bytes."""
    resident: OrderedDict[int, int] = OrderedDict()
    used = misses = missed = 0
    for number in requests:
        if number in resident:
            resident.move_to_end(number)
            continue
        size = sizes[number]
        misses, missed = misses + 1, missed + size
        if size > capacity:
            continue
        while used + size > capacity:
            used -= resident.popitem(last=False)[1]
        resident[number] = size
        used += size
    return misses, missed


def greedy_dual(requests: Sequence[int], capacity: int, sizes: Sequence[int], by_bytes: bool = False) -> Result:
    """GDSF (Cherkasova 1998): whoever has the least clock + frequency x cost / size leaves; cost 1, or the size."""
    priority: dict[int, float] = {}
    frequency: dict[int, int] = {}
    heap: list[tuple[float, int]] = []  # outdated entries are skipped
    clock = 0.0
    used = misses = missed = 0
    for number in requests:
        size = sizes[number]
        value = 1.0 if by_bytes else 1.0 / size
        if number not in priority:
            misses, missed = misses + 1, missed + size
            if size > capacity:
                continue
            while used + size > capacity:
                worst, victim = heapq.heappop(heap)
                if priority.get(victim) == worst:
                    clock = worst
                    del priority[victim]
                    used -= sizes[victim]
            used += size
            frequency[number] = 0
        frequency[number] += 1
        priority[number] = clock + frequency[number] * value
        heapq.heappush(heap, (priority[number], number))
    return misses, missed


def s3_fifo(requests: Sequence[int], capacity: int, sizes: Sequence[int]) -> Result:
    """S3-FIFO (SOSP 2023) with all three queues over bytes: SMALL a tenth, the ghosts as large as MAIN."""
    small: deque[int] = deque()
    main: deque[int] = deque()
    ghosts: OrderedDict[int, int] = OrderedDict()
    hits: dict[int, int] = {}
    small_used = main_used = ghost_used = misses = missed = 0
    small_limit = capacity // 10

    def evict() -> None:
        nonlocal small_used, main_used, ghost_used
        if small and (small_used > small_limit or not main):
            victim = small.popleft()
            small_used -= sizes[victim]
            if hits[victim] > 1:
                hits[victim] = 0
                main.append(victim)
                main_used += sizes[victim]
                return
            ghosts[victim] = sizes[victim]
            ghost_used += sizes[victim]
            while ghost_used > capacity - small_limit:
                ghost_used -= ghosts.popitem(last=False)[1]
        else:
            victim = main.popleft()
            if hits[victim] > 0:
                hits[victim] -= 1
                main.append(victim)
                return
            main_used -= sizes[victim]
        del hits[victim]

    for number in requests:
        if number in hits:
            hits[number] = min(3, hits[number] + 1)
            continue
        size = sizes[number]
        misses, missed = misses + 1, missed + size
        if size > capacity:
            continue
        while small_used + main_used + size > capacity:
            evict()
        hits[number] = 0
        if number in ghosts:
            ghost_used -= ghosts.pop(number)
            main.append(number)
            main_used += size
        else:
            small.append(number)
            small_used += size
    return misses, missed
