"""Labels from a csv: which columns become labels, what is said about it, and how to choose."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from places import CLIPS

from robossl.cli.main import main
from robossl.data.ingest import ingest
from robossl.data.labels import reason_not_label
from robossl.data.store import open_store
from robossl.errors import InputError

LABELS = {"lab", "date", "camera", "scene", "object", "verb", "instruction"}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips and the csv that lies beside them."""
    root = tmp_path / "in"
    root.mkdir()
    lines = (CLIPS / "episodes.csv").read_text().splitlines()
    (root / "episodes.csv").write_text("\n".join(lines[:4]) + "\n")
    for line in lines[1:4]:
        path = line.split(",")[0]
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CLIPS / path, root / path)
    return root


def names(root: Path, out: Path, *options: str) -> set[str]:
    assert main(["ingest", str(root), "--out", str(out), "--short-side", "16", "--workers", "1", *options]) == 0
    return set(open_store(out).label_names)


def test_what_lies_beside_the_videos_is_announced_and_measurements_are_no_labels(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert names(clips, tmp_path / "out") == LABELS
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "labels from episodes.csv" in line]
    for name in LABELS:
        assert name in said.split("not labels:")[0]
    for name in ("time (a time)", "frames (a measurement)", "fps (a", "width (a", "height (a"):
        assert name in said.split("not labels:")[1]
    assert "--label-columns" in said and "--labels none" in said


def test_a_csv_that_is_named_gives_all_of_its_columns(clips: Path, tmp_path: Path) -> None:
    found = names(clips, tmp_path / "out", "--labels", str(clips / "episodes.csv"))
    assert found == LABELS | {"time", "frames", "fps", "width", "height"}


def test_columns_can_be_chosen_or_none(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert names(clips, tmp_path / "chosen", "--label-columns", "scene", "frames") == {"scene", "frames"}
    for word in ("none", "None", "null"):
        assert names(clips, tmp_path / word, "--labels", word) == set()
    assert names(clips, tmp_path / "auto", "--labels", "auto") == LABELS
    capsys.readouterr()
    assert names(clips, tmp_path / "no", "--labels", "none") == set()
    assert "labels from" not in capsys.readouterr().out
    with pytest.raises(InputError, match=r"unknown column 'scenes'; did you mean 'scene'\? .* in .*episodes.csv"):
        ingest([clips], out=tmp_path / "never", label_columns=("scenes",))
    with pytest.raises(InputError, match="needs a csv; name it with --labels"):
        ingest([clips], out=tmp_path / "never", labels="none", label_columns=("scene",))
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("width", ["320", "320"], "a measurement"),
        ("frameCount", ["88", "59"], "a measurement"),
        ("num_frames", ["88", "59"], "a measurement"),
        ("start_timestamp", ["2023-05-09 02:22", "2023-05-09 02:23"], "a time"),
        ("duration_s", ["1", "2"], "a time"),
        ("success_rate", ["0.5", "1"], "a measurement"),
        ("brightness", ["0.25", "0.5"], "fractions"),
        ("serial", [str(1000 + 7 * k) for k in range(50)], "a number of each row"),
        ("label", ["0.5", "1.5"], ""),
        ("class_id", [str(k) for k in range(500)], ""),
        ("grip", ["0", "1", "1"], ""),
        ("camera", ["20103212", "20655732"] * 40, ""),
        ("scene", ["Kitchen", "Office"], ""),
        ("size", ["small", "large"], ""),
        ("date", ["2023-05-09", "2023-05-18"], ""),
        ("empty", [], ""),
    ],
)
def test_which_columns_look_like_measurements(name: str, values: list[str], why: str) -> None:
    assert reason_not_label(name, values) == why


@pytest.mark.parametrize("before", ["nothing", "an empty folder"])
@pytest.mark.parametrize("kind", ["damaged", "strict"])
def test_an_ingest_that_reads_nothing_leaves_nothing(before: str, kind: str, tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "a" / "out"
    root.mkdir()
    (root / "v.mp4").write_bytes(b"no video")
    (root / "w.mp4").write_bytes(b"")
    if before == "an empty folder":
        out.mkdir(parents=True)
    with pytest.raises(InputError, match=r"nothing could be read|--strict"):
        ingest([root], out=out, workers=1, strict=kind == "strict")
    assert out.exists() == (before == "an empty folder")
    assert before == "nothing" or list(out.iterdir()) == []


def test_a_store_that_holds_something_stays_as_it_is(clips: Path, tmp_path: Path) -> None:
    ingest([clips], out=tmp_path / "out", short_side=16, workers=1)
    before = open_store(tmp_path / "out").manifest
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "v.mp4").write_bytes(b"no video")
    ingest([bad], out=tmp_path / "out", short_side=16, workers=1)
    with pytest.raises(InputError, match="--strict"):
        ingest([bad], out=tmp_path / "out", short_side=16, workers=1, strict=True)
    assert open_store(tmp_path / "out").manifest.content_hash == before.content_hash
