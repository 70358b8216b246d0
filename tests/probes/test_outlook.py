"""What no encoder could pass is said before a run; what needs no label can pass without one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT
from probe_pictures import Pictures
from probe_video_kit import plain_video_store, write_steady_onnx
from probes_kit import profile

from robossl.cli.main import main
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.probes.document import read_report
from robossl.probes.factors import FACTORS
from robossl.probes.frames import Label, Split
from robossl.probes.outlook import Outlook, make_outlook
from robossl.probes.profile import Profile, Thresholds, load_profile, profile_names
from robossl.probes.result import Report
from robossl.probes.retrieval import GALLERY
from robossl.probes.settings import QUICK
from robossl.probes.split import split_frames

LABEL_FREE = "light-and-sensor"


def frames(num: int, *, clusters: np.ndarray | None = None) -> Pictures:
    return Pictures(np.zeros((num, 4, 4, 3), np.uint8), clusters)


def outlook(task: Profile, seen: Pictures, *, factors: tuple[str, ...] | None = None, judged: int = 200) -> Outlook:
    split = Split(np.arange(judged, len(seen.clusters)), np.arange(judged))
    labels = {name: seen.labels[name] for name in task.labels if name in seen.labels}
    return make_outlook(seen, split, task, factors=factors or tuple(FACTORS), labels=labels, unavailable={})


def classes(values: np.ndarray) -> dict[str, Label]:
    return {"point": Label("class", values.astype(float)[:, None], ("a", "b"))}


def test_what_must_be_followed_needs_a_label_and_the_labels_are_named() -> None:
    task = load_profile("grasp-classification", factors=FACTORS)
    (cause, names), *others = outlook(task, frames(600)).open.items()
    assert not others
    assert "grasp-classification reads class, object, verb: none of them is read here" in cause
    followed = {name for name, each in task.factors.items() if each.needs[0] == "EQUI"}
    assert set(names) == followed and "brightness" not in names
    last = outlook(task, frames(600)).lines()[-1]
    assert "cannot end SAFE, whatever the encoder" in last
    assert "--columns TYPE NAME" in last and f"--profile {LABEL_FREE}" in last


@pytest.mark.parametrize("name", profile_names())
def test_without_labels_a_profile_can_pass_where_nothing_must_be_followed(name: str) -> None:
    task = load_profile(name, factors=FACTORS)
    follows = any("EQUI" in each.needs[: each.max_level] for each in task.factors.values())
    assert bool(outlook(task, frames(600)).open) == follows
    assert not (follows and not task.labels), "a profile that reads no label must be able to pass"


def test_needs_that_no_label_is_asked_for_may_pass() -> None:
    task = profile({"hue": "INV", "blur": "INV", "noise": "INFO", "hflip": "-"})
    assert outlook(task, frames(600)).lines() == []


def test_only_factors_that_must_be_followed_are_all_said() -> None:
    task = profile({"translation": "EQUI", "hflip": "EQUI"}, labels=())
    (only,) = outlook(task, frames(600)).open.items()
    assert only[1] == ("translation", "hflip") and "test names none" in only[0]


@pytest.mark.parametrize(
    ("seen", "thresholds", "judged", "says", "advice"),
    [
        (frames(400), Thresholds(), 120, "120 frames are judged, 200 are needed without labels", "--frames 200"),
        (frames(300), Thresholds(), 150, "150 frames are judged, 200 are needed without labels", "until there are 400"),
        (
            frames(560, clusters=np.arange(560) // 8),
            Thresholds(),
            200,
            "25 independent clusters (picture) are judged, 36 are needed without labels",
            "add episodes or scenes until there are 72: half of them are judged",
        ),
        (
            frames(46, clusters=np.arange(46) * 16 // 46),  # 16 episodes of 3 frames, as the shipped clips
            Thresholds(),
            23,
            "8 independent clusters (picture) are judged, 36 are needed without labels",
            "until there are 140",  # 70 episodes of 3 frames are 200 frames
        ),
        (
            frames(600),
            Thresholds(min_clusters=300),
            200,
            "200 independent clusters (picture) are judged, 300 are needed",
            "--frames 300",
        ),
        (frames(600), Thresholds(inv_r1=1), 200, "inf are needed", "lower inv_r1"),
    ],
)
def test_too_few_frames_or_clusters_are_said(
    seen: Pictures, thresholds: Thresholds, judged: int, says: str, advice: str
) -> None:
    lines = outlook(profile({"blur": "INV"}, thresholds=thresholds), seen, judged=judged).lines()
    assert says in lines[0] and advice in lines[1]


@pytest.mark.parametrize("frames_each", [3, 10])
def test_the_advised_number_of_episodes_is_enough(frames_each: int) -> None:
    task = profile({"blur": "INV"})

    def advised(num_episodes: int) -> Outlook:
        clusters = np.repeat(np.arange(num_episodes), frames_each)
        seen = Pictures(np.random.default_rng(0).integers(0, 255, (len(clusters), 4, 4, 3), np.uint8), clusters)
        split = split_frames(seen, n_reference=QUICK.n_reference, n_evaluation=QUICK.n_evaluation)
        return make_outlook(seen, split, task, factors=tuple(FACTORS), labels={}, unavailable={})

    (number,) = re.findall(r"until there are (\d+)", advised(16).advice)
    assert advised(int(number) - 2).open and not advised(int(number)).open


def test_the_page_and_the_code_say_the_same_numbers() -> None:
    page = " ".join((ROOT / "docs" / "probes.md").read_text(encoding="utf-8").split())
    bare, labelled = (Thresholds().least_clusters(has_label=has_label) for has_label in (False, True))
    assert f"needs {bare} judged episodes with {GALLERY} frames" in page
    assert f"a label {labelled} judged episodes are enough" in page
    assert f"give at least {2 * bare}, or {2 * labelled} with a label" in page


def test_with_a_label_fewer_episodes_are_enough() -> None:
    seen = frames(300, clusters=np.arange(300) // 10)
    seen.labels = classes(np.arange(300) // 10 % 2)
    lines = outlook(profile({"blur": "INV"}), seen, judged=150).lines()
    assert "15 independent clusters (picture) are judged, 20 are needed" in lines[0]
    assert "until there are 40" in lines[1]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.where(np.arange(600) < 210, np.arange(600) % 2, np.nan), "10 reference frames have the label point"),
        (np.where(np.arange(600) < 200, 1, np.arange(600) % 2), "is the same for all judged frames"),
        (np.where(np.arange(600) < 200, np.nan, np.arange(600) % 2), "is the same for all judged frames that have it"),
        (np.ones(600), "is the same for all reference frames"),
    ],
)
def test_a_label_that_nobody_could_read_is_said(values: np.ndarray, says: str) -> None:
    seen = frames(600)
    seen.labels = classes(values)
    (cause,) = outlook(profile({"blur": "INV", "hflip": "EQUI"}), seen).open
    assert says in cause
    seen.labels = classes(np.arange(600) % 2)
    assert not outlook(profile({"blur": "INV", "hflip": "EQUI"}), seen).open


def test_what_the_run_leaves_out_is_said_last() -> None:
    task = profile({"hue": "INV", "blur": "INV", "hflip": "EQUI"})
    lines = outlook(task, frames(600), factors=("blur", "hflip")).lines()
    assert lines[0].startswith("cannot be SAFE: hflip: the task must follow")
    assert lines[1] == "cannot be SAFE: hue: --factors leaves them out"
    shown = make_outlook(
        frames(600), Split(np.arange(200, 600), np.arange(200)), task, factors=("blur", "hflip"), labels={},
        unavailable={"hue": "grey frames"},
    )  # fmt: skip
    assert all("hue" not in names for names in shown.open.values()), "what cannot be shown does not count"


# From the command line


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain video, no label; 40 of 100 clips are judged."""
    return plain_video_store(tmp_path_factory.mktemp("plain"), num=100)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def probe(encoder: str, data: str | Path, out: Path, cache: Path, *more: str) -> Report:
    line = ["probe", "run", encoder, "--data", str(data), "--quick", "--out", str(out), "--cache", str(cache), *more]
    assert main(line) == 0
    return read_report(out / "report.json")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    run = tmp_path_factory.mktemp("untrained")
    encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(64, 64), zero_init_last=False))
    save_encoder(encoder, run / "encoder", extra={"method": "simsiam", "step": 1, "data": []})
    return str(run)


def test_plain_video_can_pass_without_a_label(
    store: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steady = write_steady_onnx(tmp_path / "steady.onnx")
    described = ("--input.range", "0-1", "--input.backbone", "test_resnet", "--profile", LABEL_FREE)
    report = probe(steady, store, tmp_path / "out", cache, *described)
    said = capsys.readouterr().out
    assert "cannot be SAFE" not in said and "labels: none" in said
    assert report.word == "SAFE", said
    assert report.task is not None and report.task.labels == () and report.data.labels == ()
    assert "It does not mean that the features carry what a task needs" in said
    assert main(["probe", "check", str(tmp_path / "out")]) == 0
    assert "labels: none" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "does not mean that the features carry what a task needs" in page and "This task reads no labels" in page
    assert "no label was read" in page and "what the task needs is there" not in page


def test_an_encoder_that_light_moves_does_not_pass(store: Path, untrained: str, cache: Path, tmp_path: Path) -> None:
    report = probe(untrained, store, tmp_path / "out", cache, "--profile", LABEL_FREE)
    assert report.word == "RISKY"
    assert main(["probe", "check", str(tmp_path / "out")]) == 10


def test_a_task_that_needs_labels_says_so_before_it_starts(
    store: Path, untrained: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--profile", "grasp-classification", "--factors", "hflip", "translation", "--frames", "60")
    report = probe(untrained, store, tmp_path / "out", cache, *more)
    said = capsys.readouterr().out
    plan, result = said[: said.index("is INCONCLUSIVE for")], said[said.index("is INCONCLUSIVE for") :]
    assert "cannot be SAFE: translation, hflip: the task must follow them" in plan and f"--profile {LABEL_FREE}" in plan
    assert result.count("no label of the task can test") == 1, "one line for both"
    assert {each.cause for each in report.verdicts if each.factor == "hflip"} == {
        "no label of the task can test whether a head follows the factor"
    }


def test_labels_may_be_left_out_of_a_profile_and_of_a_run(
    untrained: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.toml"
    text = 'schema = "robossl.profile/1"\nname = "own"\ntitle = "T"\nabout = "A."\nversion = 1\ncalibrated = false\n'
    own.write_text(text + '[factors.blur]\nneed = "INV"\n')
    assert load_profile(own, factors=FACTORS).labels == ()
    scenes = ("--scenes", "60", "--image-size", "32", "--frames", "30")
    free = probe(untrained, "env:robossl/Push-v0", tmp_path / "free", cache, *scenes, "--profile", str(own))
    assert "labels: none are read (there are: point, angle)" in capsys.readouterr().out
    asked = ("--profile", "pose-estimation", "--factors", "blur", *scenes)
    read = probe(untrained, "env:robossl/Push-v0", tmp_path / "read", cache, *asked)
    not_read = probe(untrained, "env:robossl/Push-v0", tmp_path / "not_read", cache, *asked, "--no-labels")
    assert read.data.labels == ("point", "angle") and read.readings.clean_heads
    for report in (free, not_read):
        assert report.data.labels == () and not report.readings.clean_heads and not report.readings.retentions
    capsys.readouterr()
    assert main(["probe", "compare", str(tmp_path / "read"), str(tmp_path / "not_read")]) == 0
    assert "The reports read different labels" in capsys.readouterr().out
    assert main(["probe", "compare", str(tmp_path / "free"), str(tmp_path / "not_read")]) == 0
    assert "judge different tasks" in capsys.readouterr().out
