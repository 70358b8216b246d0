"""The decision rule, row by row; and that it never says SAFE of a collapsed encoder and does of a good one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT
from probes_kit import HEALTHY, figure, profile

from robossl.errors import InputError
from robossl.measure.figures import draw, missing
from robossl.probes.decoding import FramePairs, decode
from robossl.probes.factors import resolve_factor
from robossl.probes.frames import Label
from robossl.probes.health import health
from robossl.probes.invariance import fit_space, invariance
from robossl.probes.label_maps import ViewLabel, why_none
from robossl.probes.profile import FactorNeed, load_profile, profile_names
from robossl.probes.result import UNKNOWN, Cell, CleanHead, Decoding, Readings, Retention
from robossl.probes.retention import fit_augmented, fit_task, retention
from robossl.probes.retrieval import retrieval, spread_gallery
from robossl.probes.settings import QUICK, choose_levels
from robossl.probes.verdict import find_worst_word, judge

FACTORS = [
    "brightness",
    "gamma",
    "contrast",
    "hue",
    "saturation",
    "white_balance",
    "noise",
    "blur",
    "motion_blur",
    "jpeg",
    "shadow",
    "rotation",
    "rot90",
    "translation",
    "scale",
    "hflip",
    "crop",
    "perspective",
    "occlusion",
    "light_direction",
    "light_color",
    "table_color",
    "table_texture",
    "manip_object_color",
    "manip_object_texture",
    "receiver_object_color",
    "distractors",
    "camera_shift",
    "camera_rotation",
    "camera_zoom",
    "camera_perspective",
    "latency",
]


def readings(*, nis_w=None, r1=None, decoded=None, same=None, clean=None, augmented=None, level=1, health=HEALTHY):
    """Of one factor; what is a pair of bounds or a figure is there."""

    def of(given):
        return figure(*given) if isinstance(given, tuple) else given

    cells = [Cell("f", level, metric, of(given)) for metric, given in (("nis_w", nis_w), ("r1", r1)) if given]
    decodings = [Decoding("f", level, "abs", "linear", "regression", of(decoded), None, None, None)] if decoded else []
    heads = {"same": same, "clean": clean, "augmented": augmented}
    kept = [Retention("point", "f", level, head, of(given), 0.7, 0.6) for head, given in heads.items() if given]
    cells = cells or [Cell("f", level, "nis", figure(0, 1))]
    return Readings("x", health, tuple(cells), tuple(decodings), tuple(kept))


SEES = readings(decoded=(0.7, 0.9))
BLIND = readings(decoded=(-0.1, 0.1))
UNREADABLE = missing("task not readable: score 0.03 above chance on clean frames, 0.15 is needed", n=500, clusters=60)


@pytest.mark.parametrize(
    ("need", "found", "pixels", "word", "says"),
    [
        ("INV", {"same": (0.9, 0.95)}, SEES, "SAFE", "keeps 92% [90%, 95%]"),
        ("INV", {"same": (0.8, 0.89)}, SEES, "RISKY", "must keep 90%"),
        ("INV", {"same": (0.85, 0.95)}, SEES, "INCONCLUSIVE", "more frames"),
        ("INV", {"same": UNREADABLE, "nis_w": (0.9, 0.95), "r1": (1, 1)}, SEES, "INCONCLUSIVE", "task not readable"),
        ("INV", {"nis_w": (0.8, 0.85), "r1": (0.9, 1)}, SEES, "SAFE", "whitened invariance 0.82 [0.80, 0.85]"),
        ("INV", {"nis_w": (0.79, 0.85), "r1": (0.9, 1)}, SEES, "INCONCLUSIVE", "a label"),
        ("INV", {"nis_w": (0.8, 0.85), "r1": (0.89, 1)}, SEES, "INCONCLUSIVE", "a label"),
        ("INV", {"nis_w": (0.3, 0.49), "r1": (0.9, 1)}, SEES, "RISKY", "0.40 [0.30, 0.49]"),
        ("INV", {"nis_w": (0.8, 0.85), "r1": (0.3, 0.49)}, SEES, "RISKY", "40% [30%, 49%] of views"),
        ("INV", {"nis_w": missing("the features are not finite"), "r1": (1, 1)}, SEES, "INCONCLUSIVE", "not finite"),
        ("EQUI", {"decoded": (0.5, 0.6), "clean": (0.8, 0.9)}, SEES, "SAFE", "decoded at 0.55"),
        ("EQUI", {"decoded": (0.31, 0.6), "clean": (0.8, 0.9)}, SEES, "INCONCLUSIVE", "decoded at 0.45"),  # < 0.8 / 2
        ("EQUI", {"decoded": (0.31, 0.6), "clean": (0.8, 0.9)}, BLIND, "SAFE", "keeps 85%"),
        ("EQUI", {"decoded": (0.29, 0.6), "clean": (0.8, 0.9)}, BLIND, "INCONCLUSIVE", "too weakly"),
        (
            "EQUI",
            {"decoded": (0.5, 0.6), "clean": (0.2, 0.5), "augmented": (0.8, 0.9)},
            SEES,
            "SAFE IF TRAINED WITH IT",
            "trained with the factor, it keeps 85%",
        ),
        ("EQUI", {"decoded": (0.5, 0.6), "clean": (0.2, 0.9), "augmented": (0.8, 0.9)}, SEES, "INCONCLUSIVE", "more"),
        (
            "EQUI",
            {"decoded": (0.5, 0.6), "clean": (0.2, 0.5), "augmented": (0.6, 0.79)},
            SEES,
            "RISKY",
            "not equivariant",
        ),
        ("EQUI", {"nis_w": (0.8, 1), "decoded": (0, 0.19)}, SEES, "RISKY", "over-invariant"),
        (
            "EQUI",
            {"nis_w": (0.8, 1), "decoded": (0, 0.19), "clean": (1, 1), "augmented": (1, 1)},
            SEES,
            "RISKY",
            "over",
        ),
        ("EQUI", {"nis_w": (0.8, 1), "decoded": (0, 0.19), "clean": UNREADABLE}, SEES, "RISKY", "over-invariant"),
        ("EQUI", {"nis_w": (0.8, 1), "decoded": (0, 0.19), "clean": UNREADABLE}, BLIND, "INCONCLUSIVE", "canonical"),
        ("EQUI", {"nis_w": (0.8, 1), "decoded": (0, 0.19)}, BLIND, "INCONCLUSIVE", "no canonical orientation"),
        ("EQUI", {"nis_w": (0.7, 1), "decoded": (0, 0.19)}, SEES, "INCONCLUSIVE", "no label"),
        (
            "EQUI",
            {"nis_w": (0.2, 0.4), "decoded": (0.6, 0.7), "clean": UNREADABLE},
            SEES,
            "INCONCLUSIVE",
            "not readable",
        ),
        ("INFO", {"decoded": (0.5, 0.6)}, SEES, "SAFE", "decoded at 0.55 [0.50, 0.60]"),
        ("INFO", {"decoded": (0.1, 0.19)}, SEES, "RISKY", "the information is lost"),
        ("INFO", {"decoded": (0.1, 0.19)}, BLIND, "INCONCLUSIVE", "no reference"),
        ("INFO", {"decoded": (0.3, 0.6)}, SEES, "INCONCLUSIVE", "0.5 is needed"),
        ("INFO", {}, SEES, "INCONCLUSIVE", "was not decoded"),
    ],
)
def test_each_row_of_the_rule(need, found, pixels, word, says):
    verdict = judge(readings(**found), {"pixels": pixels}, profile({"f": need}))[0]
    assert verdict.word == word
    assert says in verdict.sentence
    assert verdict.need == need


def test_few_clusters_are_inconclusive_whatever_they_show():
    for few in (figure(0.95, 1, clusters=19), figure(0, 0.1, clusters=19)):
        (verdict, _) = judge(readings(same=few), {}, profile({"f": "INV"}))
        assert verdict.word == "INCONCLUSIVE"
        assert "19 independent clusters of frames, 20 are needed: add episodes" in verdict.sentence
    seen = figure(0.95, 1, clusters=19)
    (unlabelled, _) = judge(readings(nis_w=seen, r1=seen), {}, profile({"f": "INV"}))
    assert "19 independent clusters of frames, 36 are needed: add episodes" in unlabelled.sentence
    assert judge(readings(same=figure(0.95, 1, clusters=20)), {}, profile({"f": "INV"}))[0].word == "SAFE"


def test_the_factor_is_as_bad_as_its_worst_level_up_to_the_last_that_is_judged():
    good, bad = {"same": (0.95, 1.0)}, {"same": (0.1, 0.2)}
    levels = [readings(**(bad if level in (2, 4) else good), level=level) for level in range(1, 6)]
    whole = replace(
        levels[0],
        cells=tuple(cell for each in levels for cell in each.cells),
        retentions=tuple(kept for each in levels for kept in each.retentions),
    )
    verdicts = judge(whole, {}, profile({"f": "INV"}))
    assert [(v.level, v.word) for v in verdicts] == [
        (None, "RISKY"), (1, "SAFE"), (2, "RISKY"), (3, "SAFE"), (4, "RISKY"), (5, "SAFE"),
    ]  # fmt: skip
    assert "level 2" in verdicts[0].sentence
    first = replace(profile({}), factors={"f": FactorNeed(("INV",) * 5, max_level=1)})
    assert judge(whole, {}, first)[0].word == "SAFE"
    mixed = replace(profile({}), factors={"f": FactorNeed(("INV", "-", "INV", "INV", "INV"))})
    assert [v.level for v in judge(whole, {}, mixed)] == [None, 1, 3, 4, 5]
    assert judge(whole, {}, mixed)[0].word == "SAFE"


def test_the_run_is_as_bad_as_its_worst_factor_and_what_was_not_measured_is_told():
    verdicts = judge(readings(same=(0.95, 1)), {}, profile({"f": "INV", "g": "INV"}), unmeasured={"g": "no scene"})
    assert [(v.factor, v.word, v.metric) for v in verdicts if v.level is None][1] == (
        "g",
        "INCONCLUSIVE",
        "not measured",
    )
    assert verdicts[-1].sentence == "g: not measured: no scene"
    assert find_worst_word(verdicts) == "SAFE"
    assert find_worst_word(()) is None


def test_what_a_run_left_out_is_not_safe():
    verdicts = judge(readings(same=(0.95, 1)), {}, profile({"f": "INV", "g": "INV"}))
    assert verdicts[-1].sentence == "g: left out: this run was asked for other factors"
    assert find_worst_word(verdicts) == "INCONCLUSIVE"


def test_a_label_that_is_not_read_is_not_replaced_by_one_that_is():
    task = replace(profile({"f": "INV"}), labels=("point", "angle"))
    unread = [replace(each, clean=0.03) for each in readings(same=UNREADABLE).retentions]
    unknown = [replace(each, clean=0.7) for each in readings(same=missing(f"{UNKNOWN}: why")).retentions]
    angle = [replace(each, label="angle") for each in readings(same=(0.95, 1)).retentions]
    for first, word in ((unread, "INCONCLUSIVE"), (unknown, "SAFE")):
        found = replace(readings(nis_w=(0.9, 1)), retentions=(*first, *angle))
        assert judge(found, {}, task)[0].word == word


@pytest.mark.parametrize("name", [*profile_names(), str(ROOT / "examples" / "photographs.toml")])
def test_an_encoder_that_can_all_is_safe_for_every_task(name):
    """A gate that nothing passes is none: every factor is there, with the label that the task names first."""
    task = load_profile(name, factors=FACTORS)
    label = next(iter(task.labels), None)
    kind = label if label == "pose" else "class"
    cells, decodings, kept = [], [], []
    for factor, asked in task.factors.items():
        for level in range(1, resolve_factor(factor).num_levels + 1):
            why = why_none(kind, factor, resolve_factor(factor).family)
            follows = missing(f"{UNKNOWN}: {why}") if why else figure(0.95, 1)
            stays = figure(0.2, 0.4) if asked.needs[level - 1] == "EQUI" else figure(0.95, 1)
            cells += [Cell(factor, level, metric, stays) for metric in ("nis_w", "r1")]
            decodings += [Decoding(factor, level, "abs", "linear", "regression", figure(0.8, 0.9), None, None, None)]
            heads = {"same": figure(0.95, 1), "clean": follows, "augmented": follows}
            kept += [Retention(label, factor, level, head, each, 0.7, 0.7) for head, each in heads.items() if label]
    found = Readings("x", HEALTHY, tuple(cells), tuple(decodings), tuple(kept))
    assert find_worst_word(judge(found, {"pixels": found}, task)) == "SAFE"


def test_what_no_label_can_tell_counts_for_nobody():
    unknown = missing(f"{UNKNOWN}: no camera pose shows the mirrored scene", n=500, clusters=60)
    found = readings(nis_w=(0.1, 0.3), decoded=(0.5, 0.6), clean=unknown, augmented=unknown)
    verdicts = judge(found, {"pixels": SEES}, profile({"f": "EQUI"}))
    assert verdicts[0].metric == "not measured" and "can read" not in verdicts[0].sentence
    assert find_worst_word(verdicts) is None
    forgets = readings(nis_w=(0.9, 1), decoded=(-0.1, 0.1), clean=unknown)
    assert find_worst_word(judge(forgets, {"pixels": SEES}, profile({"f": "EQUI"}))) == "RISKY"


def test_without_labels_safe_needs_as_many_frames_as_the_gallery():
    found = readings(nis_w=(0.9, 0.95), r1=replace(figure(0.95, 1), n=120))
    (verdict, _) = judge(found, {}, profile({"f": "INV"}))
    assert verdict.word == "INCONCLUSIVE"
    assert "among 120 frames: 200 are needed" in verdict.sentence


def test_sentences_say_what_a_reader_must_know():
    pixels = {"pixels": readings(same=(0.5, 0.7))}
    (verdict, _) = judge(readings(same=(0.96, 1)), pixels, profile({"f": "INV"}, calibrated=False))
    assert verdict.sentence == (
        "f, level 1: the point head keeps 98% [96%, 100%] of its clean score (pooled pixels 60%) "
        "(uncalibrated thresholds)"
    )
    assert verdict.references == {"pixels": 0.6}
    assert (verdict.figure.n, verdict.figure.clusters) == (500, 60)
    fragile = replace(HEALTHY, flags=("precision-fragile",), fp16_error=0.3)
    assert "in fp32 only" in judge(readings(same=(0.95, 1), health=fragile), {}, profile({"f": "INV"}))[0].sentence
    lost = judge(readings(same=UNREADABLE), pixels, profile({"f": "INV"}))[0]
    assert "pooled pixels can read point" in lost.sentence


@pytest.mark.parametrize(
    ("whole", "same_view", "other_view", "said"),
    [
        ((0.3, 0.5), (0.8, 0.9), None, True),
        ((0.08, 0.3), UNREADABLE, (0.8, 0.9), False),  # read under another view alone
        ((0.08, 0.3), (0.8, 0.9), None, False),  # on the frames of this view alone: not surely read as a whole
        ((0.3, 0.5), UNREADABLE, (0.8, 0.9), False),  # read as a whole, but not on what this view still shows
        ((0.15, 0.3), (0.8, 0.9), None, True),  # the bound itself counts
    ],
)
@pytest.mark.parametrize(("need", "head"), [("INV", "same"), ("EQUI", "clean")])
def test_a_reference_is_held_to_the_rule_for_reading_too(need, head, whole, same_view, other_view, said):
    random = readings(**{head: same_view})
    elsewhere = readings(**{head: other_view}, level=2).retentions if other_view else ()
    heads = (CleanHead("point", figure(*whole)),)
    random = replace(random, clean_heads=heads, retentions=(*random.retentions, *elsewhere))
    own = readings(**{head: UNREADABLE}, decoded=(0.5, 0.6), nis_w=(0.1, 0.3))
    verdict = judge(own, {"random_init": random}, profile({"f": need}))[0]
    assert verdict.word == "INCONCLUSIVE"
    assert ("random weights can read point" in verdict.sentence) is said


# A model of an encoder: content, of which frames of a cluster share half, through a matrix.
D = 24
MIX = np.random.default_rng(0).normal(size=(D, D))


def content(rng, clusters):
    shared, own = rng.normal(size=(clusters.max() + 1, D)), rng.normal(size=(len(clusters), D))
    return np.sqrt(0.5) * shared[clusters] + np.sqrt(0.5) * own


def probe(rng, encode, *, num_frames=500, frames_per_cluster=8):
    """Verdicts of an encoder of content for a task that ignores one factor, follows one, and must know one.

    "light" adds a little noise to the content; "shift" moves what the label is and what shows that it moved.
    """
    clusters = np.arange(num_frames) // frames_per_cluster
    seen, held = content(rng, clusters), content(rng, clusters)
    draws = draw(clusters, num_resamples=300)
    space, gallery = fit_space(encode(seen)), spread_gallery(clusters)
    labels = [Label("point", each[:, :2]) for each in (seen, held)]
    task = fit_task(
        "point",
        *labels,
        reference=encode(seen),
        reference_clusters=clusters,
        clean=encode(held),
        draws=draws,
    )
    cells, decodings, kept = [], [], []
    for factor in ("light", "shift"):
        drawn = [(rng.random((len(each), 1)) < 0.5) * 1.0 for each in (seen, held)]
        moved = [_view(rng, factor, each, t) for each, t in zip((seen, held), drawn, strict=True)]
        after = (
            [ViewLabel(Label("point", each[:, :2])) for each in moved]
            if factor == "shift"
            else [ViewLabel(x) for x in labels]
        )
        features = [encode(each) for each in (*moved, seen, held)]
        pairs = [
            FramePairs(features[2], features[0], drawn[0]),
            FramePairs(features[3], features[1], drawn[1]),
        ]
        decodings += decode(*pairs, draws, factor=factor, level=1, num_classes=2, mlp=False, num_shuffles=0)
        figures = {
            **invariance(features[3], features[1], space, draws),
            **retrieval(features[3], features[1], space, draws, gallery),
        }
        cells += [Cell(factor, 1, metric, found) for metric, found in figures.items()]
        augmented = fit_augmented(
            task,
            labels[0],
            after[0],
            reference=features[2],
            moved_reference=features[0],
            reference_clusters=clusters,
        )
        kept += retention(task, features[1], after[1], draws, factor=factor, level=1, augmented=augmented)
    noisy = encode(held + 1e-3 * rng.normal(size=held.shape))
    found = Readings(
        "x",
        health(encode(seen), encode(held), noisy, space, draws, gallery),
        tuple(cells),
        tuple(decodings),
        tuple(kept),
    )
    return found


def _view(rng, factor, frames, drawn):
    if factor == "light":
        return frames + 0.2 * rng.normal(size=frames.shape)
    way = np.zeros((1, D))
    way[0, [0, 5, 6]] = 0.6, 3, 3
    return frames + drawn * way


NEEDS = profile({"light": "INV", "shift": "EQUI"})
LABEL_FREE = profile({"light": "INV", "shift": "INFO"}, labels=())


@pytest.mark.parametrize("num_simulations", [40, pytest.param(200, marks=pytest.mark.slow)], ids=["a few", "all"])
def test_a_good_encoder_is_safe_in_95_of_100_simulations(num_simulations):
    rng, safe = np.random.default_rng(0), []
    for _ in range(num_simulations):
        found = probe(rng, lambda frames: frames @ MIX)
        safe += [find_worst_word(judge(found, {"pixels": found}, task)) == "SAFE" for task in (NEEDS, LABEL_FREE)]
    assert np.mean(safe) >= 0.95


collapses = st.sampled_from(
    ["constant", "line", "curve of a line", "few points", "rounding", "dead but one", "not finite"]
)


@given(kind=collapses, size=st.floats(-6, 6), offset=st.floats(0, 1e4), seed=st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_a_collapsed_encoder_is_never_safe(kind, size, offset, seed):
    draws = np.random.default_rng(seed)
    way, middle, codes = draws.normal(size=(1, D)), offset * draws.normal(size=(1, D)), draws.normal(size=(4, D))

    def encode(frames):
        along = frames @ draws_of_line
        scale = 10.0**size
        match kind:
            case "constant":
                out = np.zeros_like(frames)
            case "line" | "dead but one":
                out = along @ (way if kind == "line" else np.eye(1, D))
            case "curve of a line":
                out = np.tanh(along) @ way
            case "few points":
                out = codes[(along[:, 0] > 0) + 2 * (frames[:, 1] > 0)]
            case "rounding":
                return (middle + scale * way).astype(np.float32) * (1 + 1e-8 * frames)
            case "not finite":
                out = np.where(frames > 3.5, np.nan, frames)
                out[0, 0] = np.inf
        return (middle + scale * out).astype(np.float32)

    draws_of_line = draws.normal(size=(D, 1))
    found = probe(np.random.default_rng(seed), encode, num_frames=200, frames_per_cluster=4)
    for task in (NEEDS, LABEL_FREE):
        verdicts = judge(found, {"pixels": SEES}, task)
        assert {verdict.word for verdict in verdicts} == {"UNUSABLE"}


def test_the_profile_without_labels_asks_of_light_and_sensor_alone():
    found = load_profile("light-and-sensor", factors=FACTORS)
    assert found.labels == ()
    assert {need for each in found.factors.values() for need in each.needs} == {"INV"}
    assert {resolve_factor(name).family for name in found.factors} == {"photometric"}
    assert "does not mean that the features carry what a task needs" in found.about


def test_the_four_tasks_load_and_follow_the_table_of_needs():
    found = {name: load_profile(name, factors=FACTORS) for name in profile_names() if name != "light-and-sensor"}
    assert list(found) == ["colour-keyed-sorting", "grasp-classification", "navigation", "pose-estimation"]
    for name, each in found.items():
        assert each.name == name
        assert not each.calibrated
        assert set(each.factors) == set(FACTORS)
        assert each.factors["white_balance"].needs == ("INV",) * 5
        assert each.thresholds.inv_nis_w == 0.8
    assert found["pose-estimation"].factors["rotation"].needs == ("EQUI",) * 5
    assert found["navigation"].factors["rotation"].needs == ("INV", "INV", "EQUI", "EQUI", "EQUI")
    assert found["colour-keyed-sorting"].factors["hue"].needs == ("INFO",) * 5
    assert found["colour-keyed-sorting"].factors["scale"].needs == ("-",) * 5
    assert found["grasp-classification"].factors["hflip"].needs == ("EQUI",) * 5


GOOD = """schema = "robossl.profile/1"
name = "mine"
title = "Mine"
about = "A task."
version = 2
calibrated = true
labels = ["gripper"]
[thresholds]
inv_nis_w = 0.7
[factors.hue]
need = ["INV", "INV", "INFO", "INFO", "-"]
max_level = 4
"""


def test_a_profile_of_ones_own_is_read_with_its_digest(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    found = load_profile(path, factors=FACTORS)
    assert (found.name, found.version, found.calibrated, found.labels) == ("mine", 2, True, ("gripper",))
    assert (found.thresholds.inv_nis_w, found.thresholds.inv_r1) == (0.7, 0.9)
    assert found.factors["hue"] == FactorNeed(("INV", "INV", "INFO", "INFO", "-"), 4)
    path.write_text(GOOD + "\n")
    assert load_profile(path, factors=FACTORS).sha256 != found.sha256
    assert len(found.sha256) == 64


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("robossl.profile/1", "robossl.profile/9", "schema must be 'robossl.profile/1', got 'robossl.profile/9'"),
        ('title = "Mine"', 'titel = "Mine"', "unknown key 'titel'; did you mean 'title'?"),
        ('title = "Mine"\n', "", "title is missing and has no default; give text"),
        ("version = 2", 'version = "2"', "version must be a whole number, got '2'"),
        ("version = 2", "version = true", "version must be a whole number, got true"),
        ('["gripper"]', "[1]", "labels[0] must be text, got 1"),
        ("inv_nis_w", "inv_nisw", "did you mean 'inv_nis_w'?"),
        ("0.7", "7", "thresholds: inv_nis_w must lie in 0 to 1, got 7.0"),
        ("0.7", "nan", "thresholds: inv_nis_w must lie in 0 to 1, got nan"),
        ("factors.hue", "factors.hew", "unknown factor 'hew'; did you mean 'hue'?"),
        ("[thresholds]", "[thresholds]\nmin_clusters = 2", "min_clusters must be 20 or more, got 2"),
        (
            '["INV", "INV", "INFO", "INFO", "-"]',
            '["-", "-", "-", "-", "INV"]',
            "has no need at the judged strengths 1 to 4",
        ),
        ("max_level = 4", "max_level = 6", "factors.hue: max_level must lie in 1 to 5, got 6"),
        ("max_level", "maxlevel", "unknown key in factors.hue 'maxlevel'; did you mean 'max_level'?"),
        (
            '"INFO", "-"]',
            '"INFO"]',
            "factors.hue: need must be one of INV, EQUI, INFO, -, or five of them, one for each level",
        ),
        ('"INFO", "-"]', '"INFO", "MAYBE"]', "got ['INV', 'INV', 'INFO', 'INFO', 'MAYBE']"),
        ("[thresholds]", "[thresholds", "not valid TOML"),
    ],
)
def test_a_bad_profile_is_refused_in_one_line(tmp_path, was, becomes, says):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(was, becomes))
    with pytest.raises(InputError) as caught:
        load_profile(path, factors=FACTORS)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match=r"unknown profile 'pose'.*or pass a TOML file"):
        load_profile("pose", factors=FACTORS)
    with pytest.raises(InputError, match="cannot read the profile"):
        load_profile(tmp_path / "none.toml", factors=FACTORS)


def test_a_quick_look_measures_the_hardest_strength_that_is_judged_of_every_need():
    needs = {
        "blur": FactorNeed(("INV",) * 5, max_level=5),
        "jpeg": FactorNeed(("-", "INV", "-", "-", "-"), max_level=2),
        "rotation": FactorNeed(("INV", "INV", "EQUI", "EQUI", "EQUI"), max_level=4),
        "hflip": FactorNeed(("EQUI",) * 5),
    }
    shown, decoded = choose_levels(tuple(needs), replace(profile({}), factors=needs), QUICK)
    assert shown == {"blur": (1, 3, 5), "jpeg": (1, 2, 3), "rotation": (1, 2, 3, 4), "hflip": (1,)}
    assert (decoded["rotation"], decoded["hflip"]) == ((3, 4), (1,))
