"""The state probe: ridge by folds of episodes, R2 as scikit-learn has it, intervals that hold the truth's side."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from places import G1
from robossl_envs.collect import collect
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from robossl.cli.main import main
from robossl.data.ingest import ingest
from robossl.data.store import open_store
from robossl.errors import InputError
from robossl.evaluation.regress import to_markdown
from robossl.evaluation.state import (
    StateSettings,
    _moving,
    _probe,
    _resamples,
    interval,
    open_probe,
    run_state,
)
from robossl.measure.ridge import predict_by_ridge

SETTINGS = StateSettings(bootstrap=200)


def made(num_episodes: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, a state that is linear in them, episodes."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(num_episodes * 20, 12)).astype(np.float32)
    state = features[:, :3] @ draw.normal(size=(3, 4)) + noise * draw.normal(size=(len(features), 4))
    return features, state, np.repeat(np.arange(num_episodes), 20)


def test_r2_is_scikit_learn_s_over_predictions_of_episodes_not_fitted_on() -> None:
    features, state, episodes = made(10, noise=0.5)
    r2, penalties = _probe(features, state, episodes, np.ones((1, 10)), SETTINGS)
    predicted = np.empty_like(state)
    for seen, held in GroupKFold(5, shuffle=True, random_state=0).split(features, state, episodes):
        predicted[held], _ = predict_by_ridge(features[seen], state[seen], episodes[seen], features[held])
    assert r2[0] == pytest.approx(r2_score(state, predicted), abs=1e-12)
    assert 0.7 < r2[0] < 1.0
    assert len(penalties) == 5
    assert _probe(features, state[:, :1], episodes, np.ones((1, 10)), SETTINGS)[0][0] > 0.7, "one dimension alone"


def test_what_is_not_in_the_features_is_not_found() -> None:
    features, _, episodes = made(10, noise=0.0)
    unrelated = np.random.default_rng(1).normal(size=(len(features), 4))
    weights = _resamples(10, SETTINGS)
    assert interval(_probe(features, unrelated, episodes, weights, SETTINGS)[0][None]).high < 0.1
    constant = np.ones_like(features)
    assert _probe(constant, unrelated, episodes, weights, SETTINGS)[0][0] == pytest.approx(0, abs=0.02)


def test_more_noise_gives_a_lower_r2_and_the_paired_interval_says_so() -> None:
    weights = _resamples(12, SETTINGS)
    clear, noisy = (_probe(*made(12, noise=n), weights, SETTINGS)[0][None] for n in (0.2, 2.0))
    assert interval(clear - noisy).low > 0
    assert interval(clear).low < interval(clear).estimate < interval(clear).high


def test_a_channel_that_wakes_in_one_episode_ruins_nothing() -> None:
    """Of a trained efficientnet_lite0, R2 of G1's joints went from 0.60 to -0.19 by such channels in one episode."""
    features, state, episodes = made(10, noise=0.5)
    weights = np.ones((1, 10))
    before = _probe(features, state, episodes, weights, SETTINGS)[0][0]
    waking = np.zeros((len(features), 1), dtype=np.float32)
    waking[:3], waking[episodes == 9] = 1e-3, 1.0
    after = _probe(np.concatenate([features, waking], axis=1), state, episodes, weights, SETTINGS)[0][0]
    assert after == pytest.approx(before, abs=0.02)


def with_gripper(moves_in: int, rest: float, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten episodes with one easy dimension and one that stands at `rest` but in the first few of them."""
    features, state, episodes = made(10, noise=0.3)
    draw = np.random.default_rng(5)
    gripper = rest + noise * draw.normal(size=len(state))
    gripper += (episodes < moves_in) & (np.arange(len(state)) % 20 >= 10)
    return features, np.stack([state[:, 0], gripper], axis=1), episodes


@pytest.mark.parametrize(("rest", "noise"), [(0.0, 1e-3), (1.3, 0.0), (0.0, 0.0)])
def test_a_gripper_that_moves_in_few_episodes_ruins_neither_estimate_nor_interval(rest: float, noise: float) -> None:
    """It cannot be read, the other dimension can: a mean R2 near a half, but for resamples that divide by nothing."""
    weights = _resamples(10, SETTINGS)
    for moves_in in (2, 3):
        features, state, episodes = with_gripper(moves_in, rest, noise)
        assert _moving(state, episodes, SETTINGS).tolist() == [True, True]
        estimate, low, high = interval(_probe(features, state, episodes, weights, SETTINGS)[0][None])
        assert -0.5 < low < estimate < high < 0.6
        assert estimate == pytest.approx(0.4, abs=0.1), "the penalty was not chosen by the gripper alone"
    assert _moving(with_gripper(1, rest, noise)[1], episodes, SETTINGS).tolist() == [True, False], "one fit lacks it"


def test_resamples_of_what_moves_in_every_episode_have_their_plain_r2() -> None:
    features, state, episodes = made(10, noise=2.0)
    weights = _resamples(10, SETTINGS)
    found = _probe(features, state, episodes, weights, SETTINGS)[0]
    predicted = np.empty_like(state)
    for seen, held in GroupKFold(5, shuffle=True, random_state=0).split(features, state, episodes):
        predicted[held], _ = predict_by_ridge(features[seen], state[seen], episodes[seen], features[held])
    plain = [r2_score(state, predicted, sample_weight=each[episodes]) for each in weights]
    np.testing.assert_allclose(found, plain, atol=1e-12)


def test_values_that_are_not_finite_are_counted_and_refused() -> None:
    _, state, episodes = made(10, noise=0.5)
    state[[3, 50], 1] = np.nan, np.inf
    with pytest.raises(InputError, match=r"'state' has 2 of 800 values that are not finite; choose --dims"):
        _moving(state, episodes, SETTINGS)
    still = np.full_like(state, 1.3)
    with pytest.raises(InputError, match=r"no dimension of 'state' has a std of 0"):
        _moving(still, episodes, replace(SETTINGS, min_std=0.0))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"bootstrap": -1}, "bootstrap must be 0 or more, got -1"),
        ({"seed": -1}, "seed must lie in 0 to 4294967295, got -1"),
        ({"frames_per_episode": 0}, "frames_per_episode must be 1 or more, got 0"),
        ({"random_seeds": 0}, "random_seeds must be 1 or more, got 0"),
        ({"min_std": float("nan")}, "min_std must be 0 or more, got nan"),
    ],
)
def test_settings_outside_their_range_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **setting).check()
    StateSettings(bootstrap=0).check()


def test_too_few_episodes_and_nothing_that_moves_are_refused(tmp_path: Path) -> None:
    ingest((G1,), out=tmp_path / "g1", short_side=48, workers=1)
    store = open_store(tmp_path / "g1")
    with pytest.raises(InputError, match="in 5 folds needs more than 2 episodes"):
        run_state((), store, StateSettings())
    with pytest.raises(InputError, match="column 'reward' is needed"):
        run_state((), store, StateSettings(column="reward"))
    with pytest.raises(InputError, match=r"'state' has dimensions 0 to 25, got --dims 3, 28"):
        run_state((), store, StateSettings(dims=(3, 28)))
    assert main(["regress", "--store", str(tmp_path / "g1")]) == 2


def test_only_the_dimensions_asked_for_are_read(tmp_path: Path) -> None:
    common = {"env": "dots/Dot-v0", "module": ("dots",), "image_size": 32, "workers": 1}
    collect(agent="random", episodes=8, out=tmp_path / "frames", **common)
    ingest((tmp_path / "frames",), out=tmp_path / "store", short_side=32, workers=1)
    store = open_store(tmp_path / "store")
    one, both = (open_probe(store, StateSettings(min_std=0.0, dims=dims)) for dims in ((1,), (1, 0)))
    assert (one.values.shape[1], both.values.shape[1]) == (1, 2)
    assert np.array_equal(both.values[:, :1], one.values)
    assert not np.array_equal(both.values[:, 1:], one.values)


@pytest.mark.slow
def test_pixels_reach_the_known_r2_on_real_joints(shared_data, tmp_path: Path) -> None:
    """16 x 16 pixels and ridge: about 0.64 (grey, another choice of folds) on the 22 joints that move."""
    ingest((shared_data("g1_lerobot_v21"),), out=tmp_path / "g1", short_side=48, workers=2)
    result = run_state((), open_store(tmp_path / "g1"), StateSettings(frames_per_episode=20, bootstrap=200))
    assert result.num_dims == 22
    assert result.rows[0].r2.estimate == pytest.approx(0.62, abs=0.05)
    assert "| pooled pixels | 0.6" in to_markdown(result)
