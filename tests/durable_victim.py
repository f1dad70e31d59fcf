"""Kills writers: run as a program with a directory, a number of kills and a seed; prints what it found.

Each round forks a child that writes with durability="always" and reports through a pipe what it is about to write and
what was acknowledged; SIGKILL strikes it after a random time. Then the dict is opened, and must have exactly what was
acknowledged, with or without the one write that was under way.
"""

import os
import random
import select
import signal
import struct
import sys
import time
from typing import NoReturn

from spectral_alloc import ThermalDict
from spectral_alloc.file_system import FileSystem

REPORT = struct.Struct("<cHI")  # "b" before or "a" after, key, value (0: deleted)
KEYS = 300
STARTED_SECONDS = 20.0
LIFE_SECONDS = 0.03


class Hasty(FileSystem):
    """Does not wait for the disk: the page cache outlives a process, and the kill strikes elsewhere than in an
    fsync."""

    def sync(self, fd: int) -> None:
        """Nothing."""

    def sync_directory(self, path: str) -> None:
        """Nothing."""


def write_for_ever(path: str, pipe: int, seed: int) -> NoReturn:
    """The child: never ends by itself."""
    chance = random.Random(seed)
    disk = Hasty() if chance.random() < 0.7 else FileSystem()
    subject = ThermalDict.open(path, durability="always", memory_limit=200_000, segment_bytes=60_000, file_system=disk)
    number = 0
    while True:
        number += 1
        key = chance.randrange(KEYS)
        value = 0 if key in subject and chance.random() < 0.2 else number
        os.write(pipe, REPORT.pack(b"b", key, value))
        if value:
            subject[key] = [value, "x" * chance.randrange(2000)]
        else:
            del subject[key]
        os.write(pipe, REPORT.pack(b"a", key, value))


def reports_until(pipe: int, child: int, chance: random.Random) -> list[tuple[bytes, int, int]]:
    """Let the child live for a random time after its first report, kill it, and return all its reports."""
    if not select.select([pipe], [], [], STARTED_SECONDS)[0]:
        raise AssertionError("the child did not start")
    end_seconds = time.monotonic() + chance.random() * LIFE_SECONDS
    data = b""
    while (left := end_seconds - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            data += os.read(pipe, 1 << 16)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(pipe, 1 << 16):
        data += more
    whole = len(data) - len(data) % REPORT.size
    return list(REPORT.iter_unpack(data[:whole]))


def round_of(path: str, model: dict[int, int], chance: random.Random) -> tuple[int, int]:
    """One life and one kill; returns how many writes were acknowledged, and how many of them were lost."""
    pipe, child_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(pipe)
        try:
            write_for_ever(path, child_end, chance.randrange(1 << 30))
        finally:
            os._exit(1)
    os.close(child_end)
    reports = reports_until(pipe, child, chance)
    os.close(pipe)
    under_way: tuple[int, int] | None = None
    for kind, key, value in reports:
        under_way = (key, value) if kind == b"b" else None
        if kind == b"a":
            model[key] = value
    with ThermalDict.open(path, readonly=True) as subject:
        found = {key: value[0] for key, value in subject.items()}
    if under_way is not None and found.get(under_way[0], 0) == under_way[1]:
        model[under_way[0]] = under_way[1]
    expected = {key: value for key, value in model.items() if value}
    lost = sum(found.get(key) != value for key, value in expected.items()) + len(found.keys() - expected.keys())
    return sum(kind == b"a" for kind, _, _ in reports), lost


def main(path: str, kills: int, seed: int) -> None:
    """Kill so many times, and print what came of it."""
    chance = random.Random(seed)
    model: dict[int, int] = {}
    acknowledged = lost = 0
    for _ in range(kills):
        acks, losses = round_of(path, model, chance)
        acknowledged += acks
        lost += losses
    print(f"{kills} kills, {acknowledged} acknowledged writes, {lost} lost")
    sys.exit(lost > 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
