"""Features of views on disk: embedded once, and a run that was stopped goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray
from probe_views_kit import write_views

from robossl.errors import ResourceError
from robossl.measure.features import CHUNK, ViewFile, embed_views
from robossl.measure.subjects.subject import Subject, SubjectInfo


class Counting:
    """Mean colours and a map of them; stops after so many frames."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.seen, self.largest, self._stop_after = 0, 0, stop_after

    def __call__(self, frames: ndarray) -> dict[str, ndarray]:
        if self.seen + len(frames) > self._stop_after:
            raise ResourceError("stopped")
        self.seen += len(frames)
        self.largest = max(self.largest, len(frames))
        mean = frames.mean((1, 2))
        return {"pooled": mean, "dense": mean[:, :, None, None]}


def probed_by(embed: Counting) -> Subject:
    about = SubjectInfo("counting", "here", "onnx", "a" * 64, "mean", 3, "float32", "none")
    return Subject(about, "b" * 64, embed, ("pooled", "dense"))


def test_features_are_embedded_once(tmp_path: Path) -> None:
    views, embed, told = write_views(tmp_path), Counting(), []
    for _ in range(2):
        found = list(embed_views(probed_by(embed), views, tmp_path / "cache", watch=lambda *each: told.append(each)))
    assert embed.seen == 300
    assert embed.largest <= CHUNK
    assert told[-1] == (300, 300)
    assert [set(each) for each in found] == [{"pooled"}] * 2
    for view, each in zip(views, found, strict=True):
        assert isinstance(each["pooled"], np.memmap)
        np.testing.assert_allclose(each["pooled"], np.load(view.path).mean((1, 2)), rtol=1e-5)
    wider = [ViewFile(views[0].path, views[0].digest, ("pooled", "dense"))]
    both = next(embed_views(probed_by(embed), wider, tmp_path / "cache"))
    assert both["dense"].shape == (150, 3, 1, 1)


@pytest.mark.parametrize("torn", [0, 5])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, torn: int) -> None:
    views = [ViewFile(each.path, each.digest, ("pooled", "dense")) for each in write_views(tmp_path, num_views=1)]
    with pytest.raises(ResourceError, match="stopped"):
        list(embed_views(probed_by(Counting(stop_after=2 * CHUNK)), views, tmp_path / "cache"))
    part = next((tmp_path / "cache").rglob("*pooled.part"))
    with part.open("ab") as file:
        file.truncate(part.stat().st_size - torn)  # a write that was cut off
    embed = Counting()
    found = next(embed_views(probed_by(embed), views, tmp_path / "cache"))
    assert embed.seen == 150 - 2 * CHUNK + bool(torn)  # the torn row again
    np.testing.assert_allclose(found["pooled"], np.load(views[0].path).mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["dense"][:, :, 0, 0], found["pooled"])
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_part_of_other_frames_is_not_continued(tmp_path: Path) -> None:
    views = write_views(tmp_path, num_views=1, num_frames=200)
    with pytest.raises(ResourceError):
        list(embed_views(probed_by(Counting(stop_after=CHUNK)), views, tmp_path / "cache"))
    np.save(views[0].path, np.load(views[0].path)[:100])
    embed = Counting()
    assert next(embed_views(probed_by(embed), views, tmp_path / "cache"))["pooled"].shape == (100, 3)
    assert embed.seen == 100


def test_two_probes_of_one_encoder_do_not_write_at_once(tmp_path: Path) -> None:
    views = write_views(tmp_path)
    going = embed_views(probed_by(Counting()), views, tmp_path / "cache")
    next(going)
    embed, ended = Counting(), threading.Event()

    def second() -> None:
        next(embed_views(probed_by(embed), views, tmp_path / "cache"))
        ended.set()

    waits = threading.Thread(target=second)
    waits.start()
    assert not ended.wait(0.5)
    assert embed.seen == 0
    going.close()
    assert ended.wait(60)
    waits.join()
