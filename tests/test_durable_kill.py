"""SIGKILL at random moments: what durability="always" acknowledged is there, and the dict opens every time."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_no_acknowledged_write_is_lost_by_a_kill(tmp_path: Path, long_mode: bool) -> None:
    """200 kills (2,000 in the long mode) of a writing process: nothing acknowledged is lost, and every open works."""
    kills = 2_000 if long_mode else 200
    program = [sys.executable, str(ROOT / "tests" / "durable_victim.py"), str(tmp_path / "d"), str(kills), "7"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(program, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(r"(\d+) kills, (\d+) acknowledged writes, 0 lost\n", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) == kills
    assert int(found[2]) > kills
