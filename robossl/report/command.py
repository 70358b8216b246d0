"""`robossl report`: read a run folder, find nearest neighbours with its encoder, and write a page about the run."""

from __future__ import annotations

from pathlib import Path

from robossl.common.atomic_io import write_text


def report(run: Path, *, out: Path | None = None, store: Path | None = None, label: str = "") -> None:
    """Write an HTML page about a run: what was trained, how the training went, and what the encoder can tell apart.

    Args:
        run: Run folder of `robossl pretrain`.
        out: File of the page. Default: RUN/report.html.
        store: Show frames of this store with their nearest neighbours. Default: no frames.
        label: Label that decides which neighbours are hits: those with the same value as the query. Default: the first
            evaluated label, else the label of the online kNN, else the first label of the store.
    """
    from robossl.common.progress import Progress
    from robossl.data.store import open_store
    from robossl.report.neighbours import find_neighbours
    from robossl.report.page import render
    from robossl.report.record import read_run

    record = read_run(run)
    gallery = None
    with Progress(stderr=True) as progress:
        if store:
            gallery = find_neighbours(record, open_store(store), label=label, watch=progress.advance)
        out = out or run / "report.html"
        write_text(out, render(record, gallery))
        progress.say(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB); open it in a browser")
