"""The command line: python -m spectral_alloc verify PATH, python -m spectral_alloc repair PATH."""

import argparse
import sys
from pathlib import Path

from spectral_alloc.errors import SpectralAllocError
from spectral_alloc.log_check import repair, verify


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 all is whole, 1 something was damaged, 2 it could not be done.

    >>> main(["verify", "/proc/version"])
    2
    """
    parser = argparse.ArgumentParser(prog="python -m spectral_alloc", description="Look after durable dicts.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("verify", "read every byte of a durable dict and say what is damaged; changes nothing"),
        ("repair", "make a damaged durable dict usable again without what is damaged"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("path", help="the directory of the durable dict")
        command.add_argument("--key-file", type=Path, help="file with the key= that the dict was written with")
    given = parser.parse_args(arguments)
    try:
        key = given.key_file.read_bytes() if given.key_file else None
        report = {"verify": verify, "repair": repair}[given.command](given.path, key=key)
    except (SpectralAllocError, OSError, ValueError) as error:
        print(f"{given.command}: {error}", file=sys.stderr)
        return 2
    print(report)
    return 0 if report.is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
