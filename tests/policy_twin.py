"""The policy of core/policy.c and core/replay.c once more, in plain Python: lists of objects, nothing clever.

It follows the C code rule by rule, so that both must agree on every request; all arithmetic is in float64, as there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

UNIT = 16  # bytes that one unit of size is charged
ROUND = 256
WINDOW, SMALL, MAIN = "window", "small", "main"


@dataclass(eq=False)
class Entry:
    """One object: how much it is used, and where it is."""

    size: int
    cost: float
    queue: str | None = None
    seen: bool = False
    count: int = 0
    epoch: int = 0
    frequency: int = 0
    stamp: int = 0
    from_main: bool = False

    @property
    def charge(self) -> int:
        """What the queues count; sizes here are small enough to be charged exactly."""
        return self.size * UNIT

    def cool(self, epoch: int) -> None:
        """Halve the count once an epoch."""
        self.count >>= min(16, (epoch - self.epoch) % 256)
        self.epoch = epoch


@dataclass
class Twin:
    """Replays requests; ``misses`` is to be compared."""

    rules: Mapping[str, float]
    capacity: int
    sizes: Sequence[int]
    costs: Sequence[float] | None = None
    misses: int = 0
    epoch: int = 0
    epoch_left: int = 0
    resident_size: int = 0
    filled: bool = False
    fractions: int = 0
    trust: float = 1.0
    doubt: float = 0.0
    small_hits: float = 0.0
    promises: float = 0.0
    mean_cost: float = 0.0
    mean_bytes: float = 0.0
    queues: dict[str, list[Entry]] = field(default_factory=lambda: {WINDOW: [], SMALL: [], MAIN: []})
    clocks: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})

    def __post_init__(self) -> None:
        costs = self.sizes if self.costs is None else self.costs
        self.entries = [Entry(size, cost) for size, cost in zip(self.sizes, costs, strict=True)]
        self.share = self.rules["share_first"]

    def request(self, number: int) -> None:
        """One request."""
        entry = self.entries[number]
        self.epoch_left -= 1
        if self.epoch_left < 0:
            self.epoch = (self.epoch + 1) % 256
            self.epoch_left = 16 * (sum(map(len, self.queues.values())) + 1)
        if not entry.seen:
            entry.epoch = self.epoch
        entry.cool(self.epoch)
        entry.count = min(65535, entry.count + 1)
        entry.frequency = min(3, entry.frequency + 1)
        if entry.queue is None:
            self.miss(entry)

    def miss(self, entry: Entry) -> None:
        """Let an object in, and others out."""
        self.misses += 1
        if entry.size > self.capacity:
            return
        if entry.seen:
            self.come_back(entry)
        else:
            self.enter(entry, WINDOW)
        entry.seen = True
        self.resident_size += entry.size
        while self.resident_size > self.capacity:
            self.resident_size -= self.victim().size

    # sums

    def bytes_in(self, queue: str) -> int:
        """The charges of one queue."""
        return sum(entry.charge for entry in self.queues[queue])

    @property
    def young(self) -> float:
        """The charges of the two queues that the share limits."""
        return float(self.bytes_in(WINDOW) + self.bytes_in(SMALL))

    @property
    def total(self) -> float:
        """All charges, at least 1."""
        return max(1.0, self.young + self.bytes_in(MAIN))

    def weight(self, entry: Entry) -> float:
        """Cost per byte over the mean."""
        if self.costs is None or self.mean_cost <= 0:
            return 1.0
        weight = entry.cost / max(UNIT, entry.charge) * (self.mean_bytes / self.mean_cost)
        most = self.rules["weight_most"]
        return most if weight > most else 1 / most if weight * most < 1 else weight

    # moves

    def move(self, entry: Entry, queue: str | None) -> None:
        """Take an object out of its queue and append it to another."""
        if entry.queue is not None:
            self.queues[entry.queue].remove(entry)
        entry.queue = queue
        if queue is not None:
            self.queues[queue].append(entry)

    def give_credit(self, entry: Entry) -> None:
        """An object comes to SMALL or MAIN."""
        if self.costs is None:
            return
        part = 1.0 / 256 if self.mean_bytes > 0 else 1.0
        self.mean_bytes += part * (max(UNIT, entry.charge) - self.mean_bytes)
        self.mean_cost += part * (entry.cost - self.mean_cost)
        weight = self.weight(entry)
        entry.stamp = int((weight - 1) * ROUND) if weight > 1 else 0

    def enter(self, entry: Entry, queue: str) -> None:
        """A new or returning object enters."""
        entry.stamp = 0
        if queue == MAIN:
            self.give_credit(entry)
        entry.frequency = 0
        entry.from_main = False
        self.move(entry, queue)

    def change_trust(self, steps: float) -> None:
        """Let more or fewer ghosts into MAIN."""
        self.trust = min(max(self.trust + steps * self.rules["trust_step"], self.rules["trust_least"]), 1.0)

    def oldest(self, *queues: str) -> Entry | None:
        """The oldest object of the first queue that has one."""
        return next((self.queues[queue][0] for queue in queues if self.queues[queue]), None)

    def settle(self) -> None:
        """Fill MAIN at first, later keep WINDOW short."""
        if not self.filled:
            target = self.share * self.total
            for _ in range(32):
                entry = self.oldest(SMALL, WINDOW)
                self.filled = self.rules["fill"] == 0 or entry is None or self.young <= target
                if self.filled or entry is None:
                    return
                self.give_credit(entry)
                self.move(entry, MAIN)
            return
        part = min(self.share * self.rules["window_of_young"], self.rules["window_most"])
        target = part * self.total
        for _ in range(4):
            entry = self.oldest(WINDOW)
            if entry is None or self.bytes_in(WINDOW) <= target:
                return
            entry.frequency = 0
            self.give_credit(entry)
            self.move(entry, SMALL)

    def pays(self, entry: Entry) -> bool:
        """One more round in MAIN, paid with hits."""
        if entry.frequency and not entry.from_main:
            entry.from_main = True
            self.change_trust(1)
        weight = self.weight(entry) if entry.frequency else 1.0
        credit = entry.stamp + int(entry.frequency * weight * ROUND)
        if entry.frequency:
            credit = min(credit, max(entry.stamp, int(3 * weight * ROUND)))
        entry.frequency = 0
        if credit < ROUND:
            self.fractions += credit
            credit = 0
            if self.fractions < ROUND:
                entry.stamp = 0
                return False
            self.fractions -= ROUND
            credit = ROUND
        entry.stamp = credit - ROUND
        return True

    def stamp_now(self, from_main: bool) -> int:
        """The clock of a queue, as a stamp."""
        return int(self.clocks[from_main] * 256) % 65536

    def give_up(self, entry: Entry, from_main: bool) -> Entry:
        """An object leaves and remembers when."""
        self.clocks[from_main] += entry.charge / self.total
        entry.from_main, entry.stamp = from_main, self.stamp_now(from_main)
        self.move(entry, None)
        return entry

    def victim(self) -> Entry:
        """The object that leaves; there is one, since the capacity is exceeded."""
        self.settle()
        while True:
            entry = self.oldest(MAIN)
            if entry is None or (self.filled and self.young > self.share * self.total):
                entry = self.oldest(SMALL, WINDOW)
                assert entry is not None
                if entry.frequency > 0 and entry.queue == SMALL:
                    entry.frequency = 0
                    entry.from_main = True
                    self.small_hits += (1 - self.small_hits) / 100
                    self.move(entry, MAIN)
                elif entry.stamp >= ROUND:
                    entry.stamp -= ROUND
                    self.move(entry, SMALL)
                else:
                    self.small_hits -= self.small_hits / 100
                    self.promises -= self.promises / 100
                    return self.give_up(entry, False)
            elif self.pays(entry):
                self.move(entry, MAIN)
            else:
                return self.give_up(entry, True)

    def rival(self) -> Entry | None:
        """What MAIN would give up next."""
        entry = self.oldest(MAIN)
        for _ in range(16):
            if entry is None or not self.pays(entry):
                break
            self.move(entry, MAIN)
            entry = self.oldest(MAIN)
        return entry

    def learn(self, entry: Entry) -> None:
        """A ghost within the margin moves the share, and the trust."""
        rules = self.rules
        step = rules["share_step"] * entry.charge / self.total
        if entry.from_main:
            self.change_trust(-rules["trust_loss"])
            step = -step
        else:
            self.promises += 1.0 / 100
            borne_out = rules["concavity"] * self.promises * self.share / rules["margin"]
            if self.small_hits < borne_out:
                step *= self.small_hits / borne_out
        self.share = min(max(self.share + step, rules["share_least"]), rules["share_most"])

    def come_back(self, entry: Entry) -> None:
        """A ghost returns: learn from its age, and compare it with its rival."""
        rules = self.rules
        age = (self.stamp_now(entry.from_main) - entry.stamp) % 65536 / 256
        if age < rules["margin"]:
            self.learn(entry)
        recent = age < rules["ghost"]
        rival = self.rival() if self.filled else None
        worthy = False
        if rival is not None:
            rival.cool(entry.epoch)
            own, other = entry.count * self.weight(entry), rival.count * self.weight(rival)
            worthy = own + rules["rival_slack"] >= other if recent else own > rules["old_factor"] * other + 1
            if worthy and recent:
                self.doubt += self.trust
                worthy = self.doubt >= 1
                self.doubt -= worthy
        self.enter(entry, MAIN if worthy else WINDOW)
