"""Run cases: one line of JSON for each, {"case": name, "error": text or null}."""

import json
import sys
import traceback
import warnings

from touch_cases import edits, memory, processes, reading, system
from touch_cases.names import cases_of

MODULES = (reading, edits, processes, memory, system)


def main(names: list[str]) -> None:
    """Run the cases with these names, or all that need no process of their own."""
    known = {name: case for module in MODULES for name, case in cases_of(module).items()}
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="neither userfaultfd nor", category=RuntimeWarning)
    # Forks of a process with threads are what some cases are about.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
    for name in names or [name for name in known if name.startswith("case_")]:
        error = None
        try:
            known[name]()
        except BaseException:
            error = traceback.format_exc()
        print(json.dumps({"case": name, "error": error}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
