"""Whole files or none: what a reader finds when a write fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from robossl.common.atomic_io import write_text
from robossl.errors import InputError

FULL = """
import resource, signal, sys
from pathlib import Path
from robossl.common.atomic_io import write_text
from robossl.errors import ResourceError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a longer write fails as on a full disk
try:
    write_text(Path(sys.argv[1]), "x" * 5000)
except ResourceError as error:
    print(error)
"""


def test_a_text_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_text(path, "whole")
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"disk full while writing {path.parent}; make room and run the same command again\n"
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("place", "said"),
    [("", "is a folder; name a file"), (".", "is a folder; name a file"), ("file/page.html", "choose")],
)
def test_a_place_that_takes_no_file_is_one_line(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").touch()
    path = Path(place) if place == "." else tmp_path / place
    with pytest.raises(InputError, match=f"cannot write .*{said}"):
        write_text(path, "text")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
