"""The type of path arguments: text, a `Path`, or an object that stands for a path, such as a run or a store."""

from __future__ import annotations

import os

StrPath = str | os.PathLike[str]
