"""What an evaluation compares: every subject has a name of its own, and only seeds of one run are joined."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from onnx import TensorProto
from onnx_kit import write_onnx
from safetensors.torch import save_file
from serving_kit import build_tiny, serving

from robossl.encoders.encoder import IMAGENET_MEAN, EncoderConfig, build_encoder, save_encoder
from robossl.errors import InputError
from robossl.evaluation.subjects import SubjectGroup, make_groups
from robossl.measure.subjects.references import MAJORITY


def saved(
    run: Path,
    *,
    weights: int = 0,
    seed: int | None = None,
    step: int = 1,
    data: str = "a",
    input_hw: tuple[int, int] = (32, 32),
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    backbone: str = "test_resnet",
) -> str:
    """A folder as a run leaves it; one without a seed has no config.yaml, as an encoder from elsewhere."""
    torch.manual_seed(weights)
    encoder = build_encoder(EncoderConfig(backbone=backbone, input_hw=input_hw, mean=mean))
    extra = {"method": "simclr", "step": step, "data": [{"store": data, "licences": []}]}
    save_encoder(encoder, run / "encoder", extra=extra)
    if seed is not None:
        (run / "config.yaml").write_text(f"method: {{name: simclr}}\nseed: {seed}\n")
    return str(run)


def subjects_of(*models: str, group_seeds: bool = False) -> list[SubjectGroup]:
    subjects = make_groups(models, random_seeds=1, seed=0, group_seeds=group_seeds)
    names = [subject.name for subject in subjects]
    assert len({*names, MAJORITY}) == 1 + len(names)
    return subjects


def test_random_weights_are_told_apart_by_what_they_see(tmp_path: Path) -> None:
    models = [
        saved(tmp_path / "small"),
        saved(tmp_path / "large", input_hw=(64, 48)),
        saved(tmp_path / "grey", input_hw=(64, 48), mean=(0.5, 0.5, 0.5)),
        saved(tmp_path / "again", weights=1),
    ]
    subjects = {subject.name: subject for subject in subjects_of(*models)}
    compared = {name: subjects[name].references[0] for name in ("small", "large", "grey", "again")}
    assert compared["small"] == compared["again"] == "random test_resnet 32x32"
    assert compared["large"].startswith("random test_resnet 64x48 (mean (0.485, ")
    assert compared["grey"].startswith("random test_resnet 64x48 (mean (0.5, 0.5, 0.5), std (")
    assert len({subjects[name].members[0].digest for name in compared.values()}) == 3
    (alone,) = [subject for subject in subjects_of(models[0]) if subject.kind == "random"]
    assert alone.name == "random test_resnet"


@pytest.mark.parametrize("name", ["pooled pixels", MAJORITY, "random test_resnet"])
def test_a_run_does_not_take_the_name_of_a_reference(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / name)
    assert [subject.name for subject in subjects_of(path) if subject.kind == "encoder"] == [path]
    monkeypatch.chdir(tmp_path)
    assert [subject.name for subject in subjects_of(name) if subject.kind == "encoder"] == [f"{name} (2)"]


def joined(*runs: str) -> list[tuple[str, int]]:
    return [(s.name, len(s.members)) for s in subjects_of(*runs, group_seeds=True) if s.kind == "encoder"]


@pytest.mark.parametrize("other", [{"step": 2}, {"data": "b"}])
def test_runs_at_another_step_or_on_other_data_are_no_seeds(other: dict[str, Any], tmp_path: Path) -> None:
    first, second = saved(tmp_path / "first", seed=0), saved(tmp_path / "second", weights=1, seed=1)
    third = saved(tmp_path / "third", weights=2, seed=2, **other)
    assert joined(first, second, third) == [("simclr test_resnet, 1 steps, 2 seeds", 2), ("third", 1)]


def test_a_seed_that_ran_twice_counts_once(tmp_path: Path) -> None:
    runs = [saved(tmp_path / f"run{i}", weights=i, seed=seed) for i, seed in enumerate((0, 0, 1))]
    assert joined(*runs) == [("simclr test_resnet, 1 steps, 3 runs of 2 seed(s)", 3)]


@pytest.mark.parametrize("group_seeds", [False, True])
def test_one_encoder_twice_is_refused(group_seeds: bool, tmp_path: Path) -> None:
    run = saved(tmp_path / "run", seed=0)
    copy = str(shutil.copytree(run, tmp_path / "copy"))
    for again in (run, f"{run}/encoder", copy):
        with pytest.raises(InputError, match=f"{run} and {again} are the same encoder.*name it once"):
            subjects_of(run, again, group_seeds=group_seeds)


def test_every_encoder_is_compared_with_the_named_one_too(tmp_path: Path) -> None:
    runs = [saved(tmp_path / f"run{seed}", weights=seed, seed=seed) for seed in (0, 1)]
    public = saved(tmp_path / "public", weights=2, seed=2)
    groups = make_groups(tuple(runs), random_seeds=1, seed=0, group_seeds=True, against=(public,))
    compared = {group.name: group.references[1:] for group in groups if group.kind == "encoder"}
    assert compared == {
        "simclr test_resnet, 1 steps, 2 seeds": ("pooled pixels", MAJORITY, "public"),
        "public": ("pooled pixels", MAJORITY),
    }


def test_everything_that_can_be_probed_can_be_compared(tmp_path: Path) -> None:
    torch.manual_seed(3)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    public = f"timm:test_resnet@{tmp_path / 'weights.safetensors'}"
    foreign = write_onnx(tmp_path / "net.onnx", shape=("b", "h", "w", 3), dtype=TensorProto.UINT8)
    build_tiny(tmp_path / "models", version=1)
    with serving(tmp_path / "models") as server:
        served = f"grpc://127.0.0.1:{server.port}/tiny"
        encoders = [group for group in subjects_of(public, foreign, served) if group.kind == "encoder"]
    assert [(group.name, group.members[0].info.kind) for group in encoders] == [
        ("test_resnet", "timm"),
        ("net", "onnx"),
        ("tiny", "grpc"),
    ]
    assert [group.references[0].startswith("random ") for group in encoders] == [True] * 3
    assert encoders[1].references[0].startswith("random resnet18"), "a stand-in"
    floats = write_onnx(tmp_path / "floats.onnx")
    with pytest.raises(InputError, match=r"pass --input.mean .* only `robossl probe run` has these options"):
        subjects_of(floats)


def test_the_class_token_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    vit = saved(tmp_path / "vit", backbone="test_vit")
    frames = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), np.uint8)
    pooled, token = (make_groups((vit,), random_seeds=1, seed=0, output=output) for output in ("pooled", "cls"))
    for one, other in zip(pooled[:2], token[:2], strict=True):  # the encoder, and random weights of its backbone
        (a,), (b,) = one.members, other.members
        assert not np.allclose(a(frames)["pooled"], b(frames)["cls"])
    with pytest.raises(InputError, match="unknown output of resnet 'cls'; choose from pooled, dense, keypoints"):
        make_groups((saved(tmp_path / "resnet"),), random_seeds=1, seed=0, output="cls")
