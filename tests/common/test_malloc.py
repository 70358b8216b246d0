from __future__ import annotations

import subprocess
import sys

import pytest

TOUCH = """
import resource, sys
import numpy as np
from robossl.common.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
np.zeros(50_000_000, np.uint8).fill(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.empty(50_000_000, np.uint8).fill(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("how", ["kept", "as it is"])
def test_freed_memory_is_used_again_without_page_faults(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", TOUCH, how], capture_output=True, text=True, check=True)
    num_faults = int(done.stdout)
    if how == "kept":
        assert num_faults < 100
    else:
        assert num_faults > 90  # 48,828 pages of 4 KiB, or 96 huge ones: the test can fail
