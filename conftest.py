"""Doctests run in a folder with four clips, a store of them and a run of two steps, made if an example names them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from _pytest.doctest import DoctestItem

CLIPS = Path(__file__).parent / "tests" / "data" / "droid" / "videos"
ROWS = (
    ("train", "office", "beccf0c9/beccf0c9-20230308-174054_29838012.mp4"),
    ("val", "office", "beccf0c9/beccf0c9-20230308-194301_29838012.mp4"),
    ("train", "kitchen", "36906660/36906660-20230429-214333_23748752.mp4"),
    ("val", "kitchen", "5030472d/5030472d-20230903-221016_23897859.mp4"),
)
TINY = {
    "train.steps": 2,
    "train.batch_size": 4,
    "train.sinks": [],
    "knn": None,
    "encoder.backbone": "test_resnet",
    "encoder.input_hw": [64, 64],
    "method.view.size": 32,
}


@pytest.fixture(scope="session")
def doctest_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clips/`: four videos and a table of labels."""
    folder = tmp_path_factory.mktemp("doctests")
    (folder / "clips").mkdir()
    rows = ["path,split,scene"]
    for split, scene, clip in ROWS:
        shutil.copy(CLIPS / clip, folder / "clips")
        rows.append(f"{Path(clip).name},{split},{scene}")
    (folder / "clips" / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="session")
def doctest_store(doctest_folder: Path) -> Path:
    """Adds `stores/clips`."""
    from robossl import ingest

    ingest(doctest_folder / "clips", out=doctest_folder / "stores" / "clips", short_side=96, workers=1)
    return doctest_folder


@pytest.fixture(scope="session")
def doctest_run(doctest_store: Path) -> Path:
    """Adds `runs/tiny`."""
    from robossl import pretrain

    out, store = doctest_store / "runs" / "tiny", doctest_store / "stores" / "clips"
    pretrain("simsiam_resnet18_video", store=store, out=out, changes=TINY)
    return doctest_store


@pytest.fixture(autouse=True)
def _doctest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(request.node, DoctestItem):
        return
    code = "".join(example.source for example in request.node.dtest.examples)
    for name, fixture in {"runs/": "doctest_run", "stores/": "doctest_store", "clips": "doctest_folder"}.items():
        if name in code:
            monkeypatch.chdir(request.getfixturevalue(fixture))
            return
