"""A session store: many idle sessions, a few busy ones, one limit, edits wherever the session happens to live."""

import random
import time

from spectral_alloc import ThermalDict

SESSIONS = 60_000
REQUESTS = 120_000


def new_session(number: int, chance: random.Random) -> dict:
    return {
        "user": f"user{number}@example.org",
        "created": 1_700_000_000 + number,
        "cart": [],
        "seen": {chance.randrange(1_000_000) for _ in range(6)},
        "profile": {"name": f"User {number}", "language": chance.choice(["de", "en", "fr", "it"]), "notes": "x" * 300},
        "hits": 0,
    }


def main() -> None:
    chance = random.Random(1)
    with ThermalDict.open(memory_limit="24 MB") as sessions:
        for number in range(SESSIONS):
            sessions[f"session-{number}"] = new_session(number, chance)
        start = time.perf_counter()
        expected = 0
        for _ in range(REQUESTS):
            number = min(int(chance.paretovariate(0.6)) - 1, SESSIONS - 1)  # a few sessions get most requests
            session = sessions[f"session-{number}"]
            session["hits"] += 1  # no write-back needed: the edit stays, whichever tier the session goes to
            session["cart"].append(number % 97)
            expected += 1
        seconds = time.perf_counter() - start
        counted = sum(session["hits"] for session in sessions.values())
        print(sessions.stats())
        print(f"{REQUESTS / seconds:,.0f} requests a second; {counted:,} hits counted, {expected:,} made")
        print("temperatures:", sessions.thermal_status())
        assert counted == expected


if __name__ == "__main__":
    main()
