"""What a program sees of the package itself."""

import subprocess
import sys

import spectral_alloc


def test_completion_shows_what_is_for_users() -> None:
    """dir() holds every public name and the modules that users import, and no other module or helper."""
    shown = [name for name in dir(spectral_alloc) if not name.startswith("_")]
    assert shown == sorted([*spectral_alloc.__all__, "errors", "lattice", "policy", "rns"])
    assert all(getattr(spectral_alloc, name) is not None for name in shown)


def test_modules_for_users_load_when_they_are_asked_for() -> None:
    """After `import spectral_alloc` alone, policy and rns are there; a name that is not is an AttributeError."""
    program = "import spectral_alloc as s; print(s.policy.simulate.__name__, s.rns.ResidueSystem.__name__); s.polici"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["simulate", "ResidueSystem"]
    assert "AttributeError: module 'spectral_alloc' has no attribute 'polici'" in done.stderr
    assert "Did you mean: 'policy'" in done.stderr
