"""The page of a run, from a run folder with real frames, an untrained encoder and made-up curves."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from places import CLIPS

from robossl.cli.main import main
from robossl.data.ingest import ingest
from robossl.data.store import Store
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.encoder_files import SCHEMA, read_about
from robossl.errors import InputError
from robossl.evaluation.result import Result, ScoreRow, Scores, read_evaluation
from robossl.evaluation.task import ClassCount
from robossl.measure.bootstrap import Interval
from robossl.report.curves import Chart, charts, draw
from robossl.report.neighbours import NUM_NEIGHBOURS, Gallery, Picture, Query, find_nearest, find_neighbours
from robossl.report.page import render
from robossl.report.record import RunRecord, Series, find_collapse, read_metrics, read_run

EVIL = "<script>alert('x')</script>\"&"


def write_run(
    path: Path, *, name: str = "simsiam", stds: list[float] | None = None, ranks: list[float] | None = None
) -> None:
    """Config and metrics as training writes them; health every 10 steps."""
    stds, ranks = stds or [0.05] * 10, ranks or [30.0] * 10
    path.mkdir(parents=True)
    config = {
        "method": {"name": name},
        "data": {"store": "stores/clips", "split": "train"},
        "encoder": {"backbone": "resnet18"},
        "train": {"steps": 10 * len(stds), "batch_size": 8},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    with (path / "metrics.jsonl").open("w") as file:
        for i, (std, rank) in enumerate(zip(stds, ranks, strict=True), start=1):
            values = {
                "loss": -0.1 * i,
                "samples_per_s": 100.0 + i,
                "lr": 0.05,
                "knn/scene": 0.1 * i,
                "swav/entropy": 1.0,
            }
            health = {
                "std": std,
                "std_reference": 1 / math.sqrt(256),
                "rank": rank,
                "alignment": 0.5,
                "uniformity": -2.0,
            }
            values |= {f"health/{key}": value for key, value in health.items()}
            file.write(json.dumps({"step": 10 * i, **values}) + "\n")


def write_encoder(path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(backbone="resnet18", input_hw=(32, 32), zero_init_last=False))
    save_encoder(
        encoder, path / "encoder", extra={"method": "simsiam", "data": [{"store": "abc", "licences": ["CC BY-NC 4.0"]}]}
    )


def write_about(path: Path, *, digest: str = "d1", input_hw: tuple[int, int] = (32, 32)) -> None:
    """What a run says of its encoder, without the weights."""
    path.mkdir(parents=True, exist_ok=True)
    about = {"schema": SCHEMA, "config": {"input_hw": input_hw}, "digest": digest, "extra": {}}
    (path / "encoder.json").write_text(json.dumps(about))


def write_evaluation(path: Path, label: str = "scene", *, protocol: str = "knn", digest: str = "d1") -> None:
    """Of another encoder, at 50 %, and of the one with this digest, at 60 %."""
    below, across = Interval(-0.2, -0.3, -0.1), Interval(0.05, -0.05, 0.15)
    minus = {"random resnet18": Interval(0.2, 0.1, 0.3), "pooled pixels": across, "majority class": below}
    encoder = ScoreRow("run", "encoder", Interval(0.6, 0.5, 0.7), Interval(0.6, 0.5, 0.7), {"a": 0.6}, minus, ())
    other = ScoreRow("before it", "encoder", Interval(0.5, 0.4, 0.6), Interval(0.5, 0.4, 0.6), {"a": 0.5}, {}, ())
    pixels = ScoreRow("pooled pixels", "pixels", Interval(0.55, 0.4, 0.7), Interval(0.5, 0.4, 0.6), {"a": 0.5}, {}, ())
    classes = (ClassCount("a", 9, 9), ClassCount("b", 9, 9))
    result = Result(protocol, label, "train", "val", classes, (), 18, 18, 36, "day", (other, encoder, pixels))
    about = {
        "command": "robossl evaluate runs/x --store stores/y --label scene",
        "encoders": [{"digest": digest, "input_hw": (64, 64)}, {"digest": digest, "input_hw": (32, 32)}],
    }
    path.write_text(Scores(about, (result,), ()).to_json())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "my run"
    write_run(path)
    write_encoder(path)
    write_evaluation(path / "evaluation.json", digest=read_about(path / "encoder")["digest"])
    return path


class Page(HTMLParser):
    """Collects what a browser would fetch or run, and pictures with their texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [value for name in ("src", "href") if (value := values.get(name))]
        if tag == "img":
            self.alts.append(values.get("alt") or "")

    def handle_data(self, data: str) -> None:
        self.text += data


# Reading a run


def test_a_run_that_was_killed_is_read_as_far_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    series = read_metrics(path)["loss"]
    assert list(series.steps) == [1, 3]
    assert list(series.values) == [2.0, 1.0]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


HEALTHY, LOW = 1 / 16, 0.001


@pytest.mark.parametrize(
    ("stds", "ranks", "expected"),
    [
        ([HEALTHY] * 6, [30.0] * 6, None),
        ([LOW, LOW, HEALTHY, HEALTHY], [30.0] * 4, None),  # two low checks are a start, not a collapse
        ([HEALTHY, LOW, LOW, LOW, LOW], [30.0] * 5, (40, False, "same output")),
        ([LOW, LOW, LOW, HEALTHY], [30.0] * 4, (30, True, "same output")),
        ([HEALTHY] * 4, [30.0, 30.0, 1.5, 1.2], (30, False, "one direction")),
        (
            [LOW, LOW, LOW, HEALTHY],
            [30.0, 30.0, 30.0, 1.0],
            (40, False, "one direction"),
        ),  # what still holds comes first
    ],
)
def test_collapse_follows_the_rule_of_training(
    tmp_path: Path, stds: list[float], ranks: list[float], expected: tuple[int, bool, str] | None
) -> None:
    write_run(tmp_path / "run", stds=stds, ranks=ranks)
    found = find_collapse(read_run(tmp_path / "run"))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.first_step, found.is_over) == expected[:2]
        assert expected[2] in found.reason


@pytest.mark.parametrize(("batch_size", "accumulate", "found"), [(8, 1, True), (4, 1, False), (8, 2, False)])
def test_the_rank_of_few_samples_says_nothing_as_in_training(
    tmp_path: Path, batch_size: int, accumulate: int, found: bool
) -> None:
    run = tmp_path / "run"
    write_run(run, ranks=[1.5] * 10)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["train"] |= {"batch_size": batch_size, "accumulate": accumulate}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert (find_collapse(read_run(run)) is not None) == found


# Curves


def test_curves_are_pictures_that_do_not_change() -> None:
    chart = Chart("Loss", {"loss": Series(np.arange(2000), np.random.default_rng(0).random(2000))}, "", smooth=True)
    first, second = draw(chart), draw(chart)
    assert first == second
    svg = base64.b64decode(first.removeprefix("data:image/svg+xml;base64,")).decode()
    assert svg.startswith("<?xml")
    assert len(svg) < 100_000
    assert "Loss over 1999 steps: loss from" in chart.alt


def test_what_was_not_logged_is_not_drawn() -> None:
    series = Series(np.array([1, 2]), np.array([1.0, 2.0]))
    assert [chart.title for chart in charts({"loss": series})] == ["Loss"]
    assert not charts({})
    titles = [chart.title for chart in charts({"health/std": series, "health/rank": series, "knn/a": series})]
    assert titles == ["Spread of outputs", "Effective rank", "Online kNN"]


# Neighbours


def test_nearest_are_of_other_episodes_and_one_of_each() -> None:
    generator = np.random.default_rng(0)
    features, episodes = generator.normal(size=(60, 4)), np.repeat(np.arange(20), 3)
    rows, cosines = find_nearest(features, episodes, np.array([7]), count=5)[0]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    best = {e: (unit[episodes == e] @ unit[7]).max() for e in range(20) if e != episodes[7]}
    assert list(cosines) == pytest.approx(sorted(best.values(), reverse=True)[:5])
    assert len(set(episodes[rows])) == 5
    assert episodes[7] not in episodes[rows]


def test_the_gallery_shows_val_frames_and_marks_hits(run: Path, clip_store: Store) -> None:
    gallery = find_neighbours(read_run(run), clip_store)
    assert gallery.label == "scene"
    assert len(gallery.queries) == 5  # val has five episodes
    val = set(clip_store.episode_id[clip_store.episode_split == "val"])
    for query in gallery.queries:
        assert query.picture.episode in val
        for side in (query.encoder, query.random):
            assert len(side) == NUM_NEIGHBOURS
            assert query.picture.episode not in {picture.episode for picture in side}
            assert all(picture.is_hit == (picture.label == query.picture.label) for picture in side)
    assert gallery.num_shown == 25
    assert gallery.encoder_hits == sum(picture.is_hit for query in gallery.queries for picture in query.encoder)


def test_an_unknown_label_is_named(run: Path, clip_store: Store) -> None:
    with pytest.raises(InputError, match="'scene'"):
        find_neighbours(read_run(run), clip_store, label="scnee")


# The page


@pytest.fixture(scope="module")
def page(run: Path, clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("pages") / "page.html"
    assert main(["report", str(run), "--store", str(clip_store_path), "--out", str(out)]) == 0
    return out.read_text()


def test_the_page_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    assert parsed.links
    assert all(link.startswith("data:") for link in parsed.links)
    assert not {"script", "iframe"} & set(parsed.tags)
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "url(" not in page
    assert len(page) < 3 * 2**20


def test_every_picture_has_words(page: str) -> None:
    alts = Page(page).alts
    assert len(alts) >= 5 + 5 * 11
    assert all(alts)


def test_the_page_says_what_happened(page: str) -> None:
    text = Page(page).text
    for words in (
        "my run",
        "simsiam",
        "100 of 100",
        "CC BY-NC 4.0",
        "not for commercial use",
        "No collapse",
        "Reads scene from unseen episodes of val at 60 % balanced accuracy by kNN",
        "▲ 20 points above random resnet18",
        "≈ not told apart from pooled pixels",
        "▼ 20 points below majority class",
        "swav/entropy",
        "Before training",
        "✓ ",
        "robossl evaluate runs/x",
    ):
        assert words in text, words


def test_a_collapsed_run_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "run", stds=[HEALTHY, *[LOW] * 9])
    text = Page(render(read_run(tmp_path / "run"), None)).text
    assert "This run has collapsed" in text
    assert "all frames get nearly the same output" in text
    assert "No collapse" not in text


def test_foreign_text_is_escaped(tmp_path: Path) -> None:
    run = tmp_path / "<b>run"
    write_run(run, name=EVIL)
    write_evaluation(run / "evaluation.json", label=EVIL, protocol=EVIL)
    picture = Picture("data:,", f"{EVIL}.mp4", EVIL)
    gallery = Gallery(EVIL, (Query(picture, (picture,), (picture,)),), 2, 2, EVIL)
    for digest in ("d1", "d2"):  # evaluated, and not evaluated
        write_about(run / "encoder", digest=digest)
        parsed = Page(render(read_run(run), gallery))
        assert not {"script", "b"} & set(parsed.tags)
        assert EVIL in parsed.text


def test_scores_are_those_of_the_encoder_the_run_holds(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    write_run(run)
    write_evaluation(run / "evaluation.json")
    write_about(run / "encoder")
    text = Page(render(read_run(run), None)).text
    assert "at 60 % balanced accuracy by kNN (before it 50 %, pooled pixels 55 %)" in text
    assert "an earlier encoder" not in text
    write_about(run / "encoder", digest="d2")  # as a resumed run does
    text = Page(render(read_run(run), None)).text
    assert "at 60 %" not in text
    assert "the scores below belong to another or an earlier encoder" in text
    assert f"robossl evaluate '{run}' --store STORE --label scene measures it" in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("results", 0, "rows", 0, "kind"), EVIL),
        (("results", 0, "rows", 0, "accuracy", "low"), EVIL),
        (("results", 0, "num_test_episodes"), EVIL),
        (("results", 0, "colour"), "blue"),
        (("results",), 5),
        (("about", "encoders"), ["run"]),
        (("about",), None),
    ],
)
def test_an_evaluation_that_is_none_is_one_line(tmp_path: Path, path: tuple[str | int, ...], value: object) -> None:
    write_evaluation(tmp_path / "evaluation.json")
    content = json.loads((tmp_path / "evaluation.json").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not an evaluation") as caught:
        read_evaluation(tmp_path / "evaluation.json")
    assert "\n" not in str(caught.value)


def test_an_evaluation_of_a_schema_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evaluation2.json").write_text('{"schema": "robossl.evaluation/1"}')
    with pytest.raises(InputError, match=r"is not an evaluation \(no 'about'\)"):
        read_evaluation(tmp_path / "evaluation2.json")


def test_a_page_that_cannot_be_written_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"robossl: cannot write {tmp_path}: it is a folder; name a file in it\n"


def test_the_first_measurement_needs_no_label_that_is_not_there(tmp_path: Path, clip_store_path: Path) -> None:
    record = RunRecord(tmp_path, {"data": {"store": str(clip_store_path)}}, {}, {}, ())
    assert f"robossl evaluate {tmp_path} --store {clip_store_path} --label LABEL" in Page(render(record, None)).text
    bare = ingest([CLIPS], out=tmp_path / "bare", short_side=32, labels="none", workers=1).path
    record = replace(record, config={"data": {"store": str(bare)}})
    text = " ".join(Page(render(record, None)).text.split())
    assert "because the store has no labels: robossl probe run" in text and "robossl evaluate" not in text
    assert f"--data {bare} --profile light-and-sensor" in text and "measures it without labels." in text


def test_a_run_without_health_or_encoder_has_a_page(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, {}, {}, {"loss": Series(np.array([1]), np.array([2.0]))}, ())
    text = Page(render(record, None)).text
    assert "Not evaluated yet" in text
    assert "before its first health check" in text and "three health curves" not in text
    assert "unknown" in text
