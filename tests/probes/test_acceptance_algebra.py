"""Encoders whose invariances are known by algebra are measured as what they are, on real frames and on drawn ones."""

from __future__ import annotations

import numpy as np
import pytest
from probes_kit import (
    Probe,
    constant,
    flip,
    flip_averaged,
    near_constant,
    pixels,
    profile,
    rank_one,
    rot4_averaged,
    scenes,
    spots,
    turn,
)

from robossl.measure.store_rows import spread_rows
from robossl.probes.label_maps import move_label
from robossl.probes.retention import fit_augmented, fit_task, retention
from robossl.probes.verdict import find_worst_word, judge

QUARTER = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
MIRROR = np.diag([-1.0, 1, 1])
TURNS = {f"rot{90 * k}": (lambda images, k=k: turn(images, k)) for k in (1, 2, 3)}


@pytest.fixture(scope="module")
def droid(clip_store_path) -> Probe:
    """Squares of the shipped clips; clips of the reference and of the evaluation are different ones."""
    from robossl.data.store import open_store

    store = open_store(clip_store_path)
    rows = spread_rows(store, np.arange(store.num_episodes), per_episode=20)
    frames = np.stack([frame.permute(1, 2, 0).numpy()[:96, 20:116] for frame in store.decode(rows.tolist())])
    clips = store.episode_of(rows)
    held = clips % 2 == 0
    return Probe(frames[~held], frames[held], clips[held])


@pytest.fixture(scope="module")
def upright() -> Probe:
    """Drawn scenes that show which way is up."""
    seen, held = (scenes(num_clusters=80, per_cluster=5, seed=seed, upright=True) for seed in (1, 2))
    return Probe(seen.images, held.images, held.clusters)


@pytest.mark.parametrize("data", ["droid", "upright"])
def test_a_flip_averaged_encoder_is_invariant_to_the_flip_and_its_base_is_not(data, request):
    probe: Probe = request.getfixturevalue(data)
    figures, base = probe.figures(flip_averaged, flip), probe.figures(pixels, flip)
    for metric in ("nis", "nis_w", "eric"):
        assert figures[metric].value >= 0.9999
    assert figures["r1"].value == figures["mrr"].value == figures["auc"].value == 1
    assert base["nis_w"].value <= figures["nis_w"].value - 0.2
    assert base["r1"].value < 1


@pytest.mark.parametrize("data", ["droid", "upright"])
def test_a_rot4_averaged_encoder_is_invariant_to_quarter_turns_and_its_base_is_not(data, request):
    probe: Probe = request.getfixturevalue(data)
    for view in TURNS.values():
        figures = probe.figures(rot4_averaged, view)
        assert figures["nis_w"].value >= 0.9999
        assert figures["r1"].value == 1
        assert probe.figures(pixels, view)["nis_w"].value <= 0.8


def test_what_was_averaged_away_is_decoded_at_chance_where_pixels_decode_it(upright):
    for encode, views in ((flip_averaged, (lambda x: x, flip)), (rot4_averaged, (lambda x: x, *TURNS.values()))):
        for each in upright.decode(encode, views):
            assert each.figure.low <= 0 <= each.figure.high
            assert each.chance == 1 / len(views)
        assert upright.decode(pixels, views, mlp=False)[0].figure.low > 0.8


def test_a_score_at_chance_lies_in_the_range_of_shuffled_parameters(upright):
    found = upright.decode(flip_averaged, (lambda x: x, flip), mlp=False)[0]
    low, high = found.shuffled
    assert low <= found.figure.value <= high
    assert -0.3 < low < 0 < high < 0.3


@pytest.mark.parametrize("data", ["droid", "upright"])
def test_averaging_over_turns_gives_no_invariance_to_brightness(data, request):
    probe: Probe = request.getfixturevalue(data)

    def darker(images):
        return (images * 0.45).astype(np.uint8)

    turned, base = probe.figures(rot4_averaged, darker)["nis_w"].value, probe.figures(pixels, darker)["nis_w"].value
    assert abs(turned - base) <= 0.1


@pytest.mark.parametrize("data", ["droid", "upright"])
def test_one_grey_level_of_noise_loses_no_frame(data, request):
    probe: Probe = request.getfixturevalue(data)
    for encode in (pixels, flip_averaged, rot4_averaged):
        found = probe.health(encode)
        assert found.floor_r1 >= 0.98
        assert found.floor_nis_w >= 0.95
        assert found.flags == ()


@pytest.mark.parametrize("data", ["droid", "upright"])
@pytest.mark.parametrize("encode", [constant, rank_one])
def test_a_collapsed_encoder_is_unusable_whatever_its_invariance(data, encode, request):
    probe: Probe = request.getfixturevalue(data)
    views = {"hflip": flip, **TURNS}
    readings = probe.readings(encode, views)
    assert readings.health.flags == ("collapsed",)
    verdicts = judge(readings, {}, profile(dict.fromkeys(views, "INV")))
    assert {verdict.word for verdict in verdicts} == {"UNUSABLE"}
    assert find_worst_word(verdicts) == "UNUSABLE"


def test_a_constant_has_no_invariance_and_rank_one_fools_it(droid):
    none = droid.figures(constant, flip)
    assert {figure.value for figure in none.values()} == {None}
    assert {figure.reason for figure in none.values()} == {"the features are the same for every frame"}
    fooled, found = droid.figures(rank_one, flip), droid.health(rank_one)
    assert fooled["nis"].value >= 0.9999
    assert fooled["nis_w"].value >= 0.9999
    assert fooled["r1"].value == 0  # every other frame on the same side ties
    assert found.floor_r1 == 0
    assert found.rankme_centred == pytest.approx(1, abs=1e-3)


def test_a_near_constant_encoder_is_fragile_and_not_collapsed(droid):
    found, base = droid.health(near_constant), droid.health(pixels)
    assert found.flags == ("precision-fragile",)
    assert found.fp16_error > 1
    assert base.fp16_error < 0.01
    assert found.rankme < 1.1
    assert found.rankme_centred == pytest.approx(base.rankme_centred, rel=0.01)
    moved, same = droid.figures(near_constant, flip), droid.figures(pixels, flip)
    assert moved["nis_w"].value == pytest.approx(same["nis_w"].value, abs=1e-4)
    assert moved["r1"].value == same["r1"].value


def kept(encode, view, homography, *, upright, factor, num_clusters=60):
    """Retention of the spot's place under an exact view, by head; and the clean score."""
    train, test = (scenes(num_clusters=num_clusters, per_cluster=6, seed=s, upright=upright) for s in (1, 2))
    probe = Probe(train.images, test.images, test.clusters)
    features = [encode(images) for images in (train.images, test.images, view(train.images), view(test.images))]
    labels = [
        move_label(
            spots(each),
            factor=factor,
            family="geometric",
            to_view=homography[None].repeat(len(each.points), 0),
            hw=(32, 32),
        )
        for each in (train, test)
    ]
    task = fit_task(
        "point",
        spots(train),
        spots(test),
        reference=features[0],
        reference_clusters=train.clusters,
        clean=features[1],
        draws=probe.draws,
    )
    augmented = fit_augmented(
        task,
        spots(train),
        labels[0],
        reference=features[0],
        moved_reference=features[2],
        reference_clusters=train.clusters,
    )
    found = retention(task, features[3], labels[1], probe.draws, factor=factor, level=1, augmented=augmented)
    return probe, task, {each.head: each for each in found}


@pytest.mark.parametrize(("factor", "view", "homography"), [("rot90", turn, QUARTER), ("hflip", flip, MIRROR)])
def test_a_head_on_pixels_follows_the_moved_label_and_not_the_old_one(factor, view, homography):
    _, task, heads = kept(pixels, view, homography, upright=False, factor=factor)
    assert task.figure.value > 0.6
    assert heads["clean"].figure.value >= 0.9
    assert heads["same"].figure.value <= 0
    assert heads["augmented"].figure.value >= 0.9


def test_a_head_fitted_upright_fails_at_a_quarter_turn_until_it_is_trained_with_it():
    """That alone is no fault of the encoder."""
    probe, _, heads = kept(pixels, turn, QUARTER, upright=True, factor="rot90")
    assert heads["clean"].figure.high < 0.8
    assert heads["augmented"].figure.low >= 0.8
    readings = probe.readings(pixels, {"rot90": turn}, tuple(heads.values()))
    assert (
        find_worst_word(judge(readings, {"pixels": readings}, profile({"rot90": "EQUI"}))) == "SAFE IF TRAINED WITH IT"
    )


def test_averaging_over_the_flip_takes_x_and_leaves_y():
    _, task, _ = kept(flip_averaged, flip, MIRROR, upright=False, factor="hflip")
    test = scenes(num_clusters=60, per_cluster=6, seed=2, upright=False)
    predicted = task.head.read(flip_averaged(test.images)) + task.head.target.centre
    error, spread = np.square(predicted - test.points).mean(axis=0), test.points.var(axis=0)
    assert (1 - error / spread)[0] <= 0.05
    assert (1 - error / spread)[1] >= 0.6
    base = kept(pixels, flip, MIRROR, upright=False, factor="hflip")[1]
    assert task.figure.value <= base.figure.value - 0.25


def test_perfect_invariance_is_risky_for_a_task_that_needs_the_turn():
    probe, task, heads = kept(rot4_averaged, turn, QUARTER, upright=True, factor="rot90")
    assert task.figure.value < 0.1
    assert "task not readable" in heads["clean"].figure.reason
    readings = probe.readings(rot4_averaged, {"rot90": turn}, tuple(heads.values()))
    references = {"pixels": probe.readings(pixels, {"rot90": turn})}
    (verdict, _) = judge(readings, references, profile({"rot90": "EQUI"}))
    assert verdict.word == "RISKY"
    assert "over-invariant" in verdict.sentence
    assert verdict.references["pixels"] > 0.8
    assert judge(readings, references, profile({"rot90": "INV"}, labels=()))[0].word == "SAFE"


def test_what_no_reference_can_read_off_the_data_condemns_nobody():
    """Scenes without an up: nobody decodes the turn."""
    probe, _, heads = kept(rot4_averaged, turn, QUARTER, upright=False, factor="rot90")
    readings = probe.readings(rot4_averaged, {"rot90": turn}, tuple(heads.values()))
    references = {"pixels": probe.readings(pixels, {"rot90": turn})}
    (verdict, _) = judge(readings, references, profile({"rot90": "EQUI"}))
    assert verdict.word == "INCONCLUSIVE"
    assert "no canonical orientation" in verdict.sentence
