"""Places: the checkout, its tests, and the clips that it ships."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
CLIPS = TESTS / "data" / "droid"
G1 = TESTS / "data" / "g1"


def kits_environment() -> dict[str, str]:
    """Return the environment of a subprocess that imports the kits and computes in one thread."""
    path = os.pathsep.join([str(TESTS / "kits"), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
