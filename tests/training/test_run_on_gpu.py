"""What a run does around a method, as on a GPU, without one: augmentation, optimizer, monitors, kNN, features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_gpu import GPU, fake_gpu, on_gpu
from methods_kit import TINY

from robossl.augment import blur
from robossl.augment.pipeline import Augment
from robossl.data.loader import ResidentFrames
from robossl.data.store import Store
from robossl.encoders.cards import torch_card
from robossl.encoders.encoder import build_encoder
from robossl.encoders.inference import TorchEncoder
from robossl.measure.collapse import CollapseMonitor
from robossl.training.online_knn import OnlineKnn
from robossl.training.optim import OptimConfig, clip_gradients, set_rates
from robossl.training.run_config import OnlineKnnConfig
from robossl.views import ClipSpec, RawBatch, RawFrames, ViewSpec

VIEW = ViewSpec(size=24, solarize_p=0.5, turn_p=0.5)
VIEWS = (
    replace(VIEW, rotation_degrees=20.0, interpolation="bicubic"),
    replace(VIEW, colour="byol"),
    replace(VIEW, colour="simclr", size=12),
    replace(VIEW, clip=ClipSpec(3, 0.1, columns=("action",)), per_frame=("jitter",)),
)


def raw_batch(b: int = 8) -> RawBatch:
    def frames(clip: ClipSpec) -> RawFrames:
        t = max(clip.num_frames, 1)
        return RawFrames(
            pixels=torch.zeros(b, t, 3, 40, 48, dtype=torch.uint8),
            source_hw=torch.tensor([[40, 48]]).repeat(b, 1),
            time_seconds=torch.zeros(b, t),
            valid=torch.ones(b, t, dtype=torch.bool),
            columns={name: torch.zeros(b, t, 2) for name in clip.columns},
        )

    clips = {spec.clip: frames(spec.clip) for spec in VIEWS}
    return RawBatch(step=3, position=torch.arange(b), index=torch.arange(b), clips=clips)


def test_augmentation_ends_on_the_gpu_and_waits_for_nothing() -> None:
    augment = Augment(VIEWS, mean=(0.5,) * 3, std=(0.2,) * 3, seed=0, device=GPU)
    tables = (blur._sources, blur._source_matrix)
    try:
        with fake_gpu() as gpu:
            augment(raw_batch())  # makes the tables of the blur, once for a run
            gpu.waits.clear()
            batch = augment(raw_batch())
            held = [batch.index, *(x for view in batch.views for x in (view.pixels, view.valid, view.source_hw))]
            held += [x for view in batch.views for x in [*view.params.values(), *view.columns.values()]]
    finally:
        for table in tables:
            table.cache_clear()
    assert {each.device.type for each in held} == {"cuda"}
    assert batch.views[3].pixels.shape == (8, 3, 3, 24, 24)
    assert not gpu.waits


@pytest.mark.parametrize("clip_over", ["all", "tensor"])
def test_a_clipped_optimizer_step_waits_for_nothing(clip_over: str) -> None:
    config = OptimConfig(clip_grad_norm=1.0, clip_over=clip_over)  # type: ignore[arg-type]
    with fake_gpu() as gpu:
        encoder = on_gpu(build_encoder(TINY))
        groups = [{"params": list(encoder.parameters()), "decays": True, "constant_lr": False, "lr_factor": 1.0}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=False)
        for weight in encoder.parameters():
            weight.grad = torch.zeros_like(weight)
        set_rates(optimizer, config, step=0, steps=2, batch_size=8)
        clip_gradients(encoder, config)
        optimizer.step()
    assert not gpu.waits


def test_the_collapse_monitor_takes_outputs_on_the_gpu() -> None:
    with fake_gpu():
        outputs = on_gpu((torch.zeros(8, 4), torch.zeros(8, 4)))
        found = CollapseMonitor().check(outputs)
    assert found.metrics.keys() >= {"health/std", "health/rank", "health/uniformity", "health/alignment"}


def test_online_knn_embeds_on_the_gpu(clip_store: Store) -> None:
    knn = OnlineKnn(clip_store, OnlineKnnConfig("scene", frames_per_episode=1), device=GPU)
    encoder = build_encoder(replace(TINY, input_hw=(32, 32)))
    with fake_gpu():
        assert knn(on_gpu(encoder)).keys() == {"knn/scene"}


def test_resident_frames_are_gathered_on_the_gpu(clip_store: Store) -> None:
    rows = clip_store.rows("train")[:4]
    with fake_gpu():
        held = ResidentFrames(clip_store, rows, GPU)
        frames = held.gather(rows[:2], clip_store.frame_hw[rows[:2]].astype(np.int64))
    assert frames.device.type == "cuda" and frames.shape[0] == 2


def test_features_for_evaluation_and_probes_are_made_on_the_gpu() -> None:
    for backbone in ("test_resnet", "test_vit"):
        encoder = build_encoder(replace(TINY, backbone=backbone, input_hw=(32, 32)))
        encode = TorchEncoder(encoder, torch_card(encoder, name="tiny", extra={}), batch_size=2)
        with fake_gpu() as gpu:
            on_gpu(encode.encoder)
            encode._device = "cuda"  # a device that the constructor refuses here
            found = encode(np.zeros((3, 40, 48, 3), np.uint8))
        assert found.keys() == set(encode.card.outputs)
        assert all(value.shape == (3, *encode.card.outputs[name].shape[1:]) for name, value in found.items())
        # Frames come from the CPU and features go there. The other copies are mean and std, once a batch.
        places = {each.partition(":")[0].rpartition("/")[2] for each in gpu.waits}
        assert places == {"inference.py", "encoder.py"} and not gpu.cpu_tensors
