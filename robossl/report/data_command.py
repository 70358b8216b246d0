"""`robossl stats STORE`: measure what a store holds, as a table, as JSON and as a page."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict
from pathlib import Path

SCHEMA = "robossl.stats/1"


def stats(store: Path, *, all: bool = False, episodes: int = 200, json: bool = False, out: Path | None = None) -> None:
    """Print statistics of a store: hours, sizes, rates, labels, brightness, motion and near-duplicates.

    Args:
        store: a folder written by `robossl ingest`.
        all: measure the frames of all episodes.
        episodes: number of episodes whose frames are measured, spread evenly over the store.
        json: print JSON instead of a table.
        out: also write an HTML page with plots and a contact sheet to this file.

    Raises:
        InputError: `store` is not a store, or `episodes` is not positive.
    """
    from robossl.common.atomic_io import write_text
    from robossl.common.checks import check_positive
    from robossl.common.progress import Progress
    from robossl.data.doctor.reading import read_store_facts
    from robossl.data.statistics import compute_statistics, measure_frames
    from robossl.data.store import open_store
    from robossl.report.data_page import print_statistics, render_statistics

    check_positive(episodes=episodes)
    opened = open_store(store)
    with Progress(unit="episodes", stderr=True) as progress:
        facts = read_store_facts(opened, max_episodes=None if all else episodes, watch=progress.advance)
        measured = measure_frames(opened, facts.pictures)
        found = compute_statistics(opened, facts.pictures, measured)
        if out:
            write_text(out, render_statistics(opened, found, measured))
            progress.say(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB); open it in a browser")
    if json:
        sys.stdout.write(json_format.dumps({"schema": SCHEMA, **asdict(found)}, indent=1, ensure_ascii=False) + "\n")
    else:
        print_statistics(found)
