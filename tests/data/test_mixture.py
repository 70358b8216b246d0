"""A run that draws from several stores: shares, order, ranks, and the frames that come out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robossl.common.config import from_mapping
from robossl.common.ranks import Ranks
from robossl.data.ingest import ingest
from robossl.data.mixture import Mixture
from robossl.data.sampler import MixedSampler, Sampler
from robossl.data.store import Store, open_store
from robossl.errors import InputError
from robossl.methods import resolve_method
from robossl.training.build import build_loader
from robossl.training.pretrain import pretrain
from robossl.training.run_config import RunConfig
from robossl.views import ClipSpec, ViewSpec

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Twenty pictures without time."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "pictures").mkdir()
    draw = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(draw.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / "pictures" / f"{i:02d}.png")
    ingest((folder / "pictures",), out=folder / "store", short_side=32, workers=1)
    return open_store(folder / "store")


def mixed(clip_store: Store, web: Store, *, weights: tuple[float, ...], batch_size: int) -> MixedSampler:
    mixture = Mixture([clip_store, web])
    rows = [np.arange(clip_store.num_frames), clip_store.num_frames + np.arange(web.num_frames)]
    pools = [Sampler(mixture, own, seed=4, batch_size=1, pool=i) for i, own in enumerate(rows)]
    return MixedSampler(tuple(pools), weights, batch_size)


def test_a_mixture_reads_as_its_stores_one_after_another(clip_store: Store, web: Store) -> None:
    mixture = Mixture([clip_store, web])
    n = clip_store.num_frames
    rows = np.array([n + 3, 5, n - 1, n])
    for row in rows:
        expected = clip_store.decode([row]) if row < n else web.decode([row - n])
        got = torch.empty(*map(int, mixture.frame_hw[row]), 3, dtype=torch.uint8)
        mixture.decode_into(int(row), got)
        assert torch.equal(got.permute(2, 0, 1), expected[0])
    assert np.array_equal(mixture.frame_hw[[5, n + 3]], [clip_store.frame_hw[5], web.frame_hw[3]])
    assert mixture.episode_of(np.array([n - 1, n]))[1] == clip_store.num_episodes
    assert mixture.episode_start[-1] == n + web.num_frames
    assert len(mixture.end_seconds) == clip_store.num_episodes + web.num_episodes


def test_every_batch_has_its_shares_and_every_picture_comes_equally_often(clip_store: Store, web: Store) -> None:
    sampler = mixed(clip_store, web, weights=(2.0, 1.0), batch_size=8)
    batches = np.stack([sampler.anchors(step) for step in range(30)])
    from_web = batches >= clip_store.num_frames
    assert set(from_web.sum(axis=1)) <= {2, 3}
    assert from_web.sum() == 80
    times = np.bincount(batches[from_web] - clip_store.num_frames)  # an epoch's rest is dropped
    assert len(times) == 20 and times.min() >= 2 and times.max() <= 5
    assert all(len(set(batch)) == 8 for batch in batches)
    assert from_web.mean(axis=0).min() > 0.1  # no place of the batch belongs to one store
    assert np.array_equal(sampler.anchors(7), mixed(clip_store, web, weights=(2.0, 1.0), batch_size=8).anchors(7))


def test_a_weight_that_gives_nothing_is_refused(clip_store: Store, web: Store) -> None:
    with pytest.raises(InputError, match=r"give a store 0\.08 samples of a batch of 8; raise its weight"):
        mixed(clip_store, web, weights=(1.0, 0.01), batch_size=8)


def test_a_store_too_small_for_its_share_is_refused(clip_store: Store, web: Store) -> None:
    with pytest.raises(InputError, match=r"take 32 of a batch of 64 from a store that has 20 frames; lower its weight"):
        mixed(clip_store, web, weights=(1.0, 1.0), batch_size=64)


def test_no_batch_holds_an_episode_twice_whatever_the_rounding(clip_store: Store, web: Store) -> None:
    third = Mixture([clip_store, web, clip_store])
    n = clip_store.num_frames
    rows = [np.arange(n), n + np.arange(web.num_frames), n + web.num_frames + np.arange(n)]
    pools = [Sampler(third, own, seed=4, batch_size=1, epoch_over="episodes", pool=i) for i, own in enumerate(rows)]
    sampler = MixedSampler(tuple(pools), (1.0, 1.7, 1.1), 13)
    for step in range(200):
        episodes = third.episode_of(np.sort(sampler.anchors(step)))
        assert len(set(episodes)) == len(episodes) == 13


def run_config(clip_store: Store, web: Store) -> RunConfig:
    return from_mapping(
        {
            "method": {"name": "simclr", "view": {"size": 32}},
            "encoder": {"backbone": "test_resnet", "input_hw": [32, 32]},
            "data": {"store": str(clip_store.path), "mix": [{"store": str(web.path), "split": None, "weight": 0.5}]},
            "train": {"steps": 2, "batch_size": 6, "sinks": [], "health_every": 1},
        },
        RunConfig,
    )


def test_resident_and_decoded_batches_are_the_same_and_ranks_cut_them(clip_store: Store, web: Store) -> None:
    config = run_config(clip_store, web)
    stores, specs = [clip_store, web], (ViewSpec(), ViewSpec(clip=ClipSpec(2, 0.2)))
    decoded = replace(config, data=replace(config.data, resident_gib=0.0, num_workers=0))
    whole = build_loader(config, ALONE, stores, specs).batch(3)
    plain = build_loader(decoded, ALONE, stores, specs).batch(3)
    halves = [build_loader(decoded, Ranks(r, 2, ALONE.device), stores, specs).batch(3) for r in range(2)]
    for clip, frames in whole.clips.items():
        assert torch.equal(frames.pixels, plain.clips[clip].pixels)
        assert torch.equal(frames.time_seconds, torch.cat([half.clips[clip].time_seconds for half in halves]))
        assert torch.equal(frames.valid, torch.cat([half.clips[clip].valid for half in halves]))


def test_a_run_draws_from_both_and_says_so(clip_store: Store, web: Store, tmp_path: Path) -> None:
    run = pretrain(run_config(clip_store, web), out=tmp_path / "run").path
    about = (run / "encoder" / "encoder.json").read_text()
    assert clip_store.content_hash in about and web.content_hash in about


def test_of_video_and_images_a_temporal_method_says_and_records_the_video_alone(
    clip_store: Store, web: Store, tmp_path: Path
) -> None:
    config = run_config(clip_store, web)
    atc = from_mapping({"ahead_seconds": 0.2, "view": {"size": 32}}, resolve_method("atc"))
    run = pretrain(replace(config, method=atc), out=tmp_path / "run").path
    about = (run / "encoder" / "encoder.json").read_text()
    assert clip_store.content_hash in about and web.content_hash not in about
    assert f"(none of {web.path}: it has no video)" in (run / "log.txt").read_text()


def test_clips_come_from_the_stores_that_have_time(clip_store: Store, web: Store) -> None:
    specs = (ViewSpec(clip=ClipSpec(3, 0.2)),)
    loader = build_loader(run_config(clip_store, web), ALONE, [clip_store, web], specs)
    assert all((loader.batch(step).index < clip_store.num_frames).all() for step in range(5))
