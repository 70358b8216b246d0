"""Places: the checkout, its tests, and the clips that it ships."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
CLIPS = TESTS / "data" / "droid"
G1 = TESTS / "data" / "g1"
