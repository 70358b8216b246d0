from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robossl.data.sampler import Sampler, thin_rows
from robossl.data.store import Store, open_store
from robossl.errors import InputError
from robossl.views import ClipSpec

ALL = slice(None)


@pytest.mark.parametrize("over", ["frames", "episodes"])
def test_an_epoch_visits_every_unit_once_in_another_order_each_time(clip_store: Store, over: str) -> None:
    sampler = Sampler(clip_store, clip_store.rows(None), seed=3, batch_size=2, epoch_over=over)  # type: ignore[arg-type]
    epochs = [
        np.concatenate([sampler.anchors(e * sampler.steps_per_epoch + s) for s in range(sampler.steps_per_epoch)])
        for e in range(2)
    ]
    for drawn in epochs:
        units = drawn if over == "frames" else clip_store.episode_of(drawn)
        assert len(np.unique(units)) == len(drawn) == sampler.units_per_epoch // 2 * 2
    assert not np.array_equal(*epochs)


def test_a_step_depends_on_seed_and_step_alone(clip_store: Store) -> None:
    rows = clip_store.rows(None)
    first, second = (Sampler(clip_store, rows, seed=5, batch_size=4) for _ in range(2))
    for step in range(40):
        first.anchors(step)
    assert np.array_equal(first.anchors(7), second.anchors(7))
    assert not np.array_equal(first.anchors(7), Sampler(clip_store, rows, seed=6, batch_size=4).anchors(7))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stride=st.floats(0.01, 1.0), low=st.floats(-2, 2), width=st.floats(0, 2), step=st.integers(0, 20))
def test_clips_stay_in_their_episode_and_take_the_latest_frame(
    clip_store: Store, stride: float, low: float, width: float, step: int
) -> None:
    sampler = Sampler(clip_store, clip_store.rows(None), seed=1, batch_size=4)
    clip = ClipSpec(num_frames=3, stride_seconds=stride, offset_seconds=(low, low + width))
    anchors = sampler.anchors(step)
    rows, times, valid = sampler.clip_rows(step, clip, anchors, ALL)
    assert np.array_equal(clip_store.episode_of(rows), np.repeat(clip_store.episode_of(anchors)[:, None], 3, axis=1))
    assert (np.diff(rows, axis=1) >= 0).all()
    starts = clip_store.episode_start[clip_store.episode_of(anchors)]
    ends = clip_store.end_seconds[clip_store.episode_of(anchors)]
    assert (valid[:, 1:] <= (times[:, :-1] + stride <= ends[:, None] + stride)).all()
    inside = rows[:, 0] > starts
    lag = times[:, 0] - clip_store.time_seconds[anchors]
    assert (lag[inside] <= low + width + 1e-5).all()
    assert (np.diff(times, axis=1) <= stride + np.diff(clip_store.time_seconds).max() + 1e-5).all()


def test_ranks_cut_the_same_global_draw(clip_store: Store) -> None:
    sampler = Sampler(clip_store, clip_store.rows(None), seed=1, batch_size=4)
    clip = ClipSpec(num_frames=2, stride_seconds=0.1, offset_seconds=(0.0, 1.0))
    anchors = sampler.anchors(3)
    whole = sampler.clip_rows(3, clip, anchors, ALL).rows
    halves = [sampler.clip_rows(3, clip, anchors[s], s).rows for s in (slice(0, 2), slice(2, 4))]
    assert np.array_equal(whole, np.concatenate(halves))


def test_thinning_keeps_the_rate_and_every_episode(clip_store: Store) -> None:
    rows = clip_store.rows(None)
    kept = thin_rows(clip_store, rows, 5.0)
    assert set(clip_store.episode_of(kept)) == set(clip_store.episode_of(rows))
    same_episode = np.diff(clip_store.episode_of(kept)) == 0
    slots = np.floor(clip_store.time_seconds[kept] * 5 + 1e-6)
    assert (np.diff(slots)[same_episode] >= 1).all()
    assert len(kept) < len(rows) / 4


def test_batch_larger_than_the_data_is_refused(clip_store_path: Path) -> None:
    store = open_store(clip_store_path)
    with pytest.raises(InputError, match=r"batch of 999999 is larger than the data: \d+ episodes; lower"):
        Sampler(store, store.rows(None), seed=0, batch_size=999_999, epoch_over="episodes")
