"""In-place edits and aliases: what disk-backed dicts usually lose, and what stays exact here."""

from dataclasses import dataclass, field

from spectral_alloc import ThermalDict


@dataclass
class Account:
    owner: str
    balance: int = 0
    history: list = field(default_factory=list)


def main() -> None:
    d = ThermalDict.open(memory_limit=0)  # nothing may stay in memory that can leave

    d["numbers"] = [1, 2, 3]
    d["other"] = "anything"
    d["numbers"].append(4)
    print("edit in place:      ", d["numbers"])

    account = d["account"] = Account("Ada")
    for key in range(1000):
        d[key] = list(range(key % 50))  # plenty of pressure; the account stays, because we hold it
    print("held meanwhile:     ", d.where("account"), "held entries:", d.stats().held_entries)
    account.balance += 100  # the old reference and the entry are still the same object
    account.history.append("deposit")
    assert d["account"] is account
    del account
    print("let go, it leaves:  ", d.where("account"), "and comes back as", d["account"])

    shared = ["shared by two keys"]
    d["left"] = d["right"] = shared
    del shared
    d["left"].append("edited through one")
    print("one object, two keys:", d["right"], d["left"] is d["right"])

    ring = ["a list that contains itself"]
    ring.append(ring)
    d["ring"] = ring
    del ring
    where = d.where("ring")
    print("cyclic:             ", where, d["ring"][1] is d["ring"] or d["ring"][1][1] is d["ring"][1])

    d["function"] = lambda: 42
    print("cannot be serialised:", d["function"](), d.stats().pinned)
    d.check()
    d.close()


if __name__ == "__main__":
    main()
