"""ACT and Diffusion Policy of the real lerobot on our encoders: they train, and act in a new process as before."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lerobot_policy_robossl", reason="needs lerobot in an environment of its own: make lerobot")

from lerobot.configs import NormalizationMode
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot_policy_robossl import RobosslActConfig, RobosslDiffusionConfig
from lerobot_policy_robossl.backbone import EncoderBackbone

import robossl
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.errors import InputError

pytestmark = pytest.mark.filterwarnings("default")  # lerobot and its packages warn

CAMERA = "observation.images.top"
ACT = {"chunk_size": 8, "n_action_steps": 4, "dim_model": 32, "n_heads": 2, "dim_feedforward": 64, "dropout": 0.0}
ACT |= {"n_encoder_layers": 1, "n_vae_encoder_layers": 1, "latent_dim": 8, "optimizer_lr": 1e-3}
DIFFUSION = {"horizon": 8, "n_action_steps": 4, "down_dims": (16, 32), "n_groups": 4, "num_train_timesteps": 10}
DIFFUSION |= {"spatial_softmax_num_keypoints": 8, "diffusion_step_embed_dim": 16, "optimizer_lr": 1e-3}
KINDS = {"act": (RobosslActConfig, ACT), "diffusion": (RobosslDiffusionConfig, DIFFUSION)}


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `robossl collect` writes: three episodes of the expert."""
    from robossl_envs.collect import collect

    out = tmp_path_factory.mktemp("collected") / "reach"
    collect(env="robossl/Reach-v0", agent="expert", episodes=3, out=out, workers=1, image_size=64, hang_seconds=600)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an encoder whose batch-norms have seen something."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(64, 64), zero_init_last=False))
        for _ in range(3):
            encoder(torch.randn(8, 3, 64, 64))
    save_encoder(encoder, folder / "encoder", extra={"method": "simclr", "step": 1, "data": []})
    return folder


@dataclass
class Trained:
    """A policy after a few steps on one batch."""

    policy: Any
    pre: Any
    post: Any
    batch: dict[str, Any]
    losses: list[float]

    @property
    def backbone(self) -> EncoderBackbone:
        return next(part for part in self.policy.modules() if isinstance(part, EncoderBackbone))


def settings(kind: str, encoder: Path | str, **changes: Any) -> Any:
    kind_of_config, values = KINDS[kind]
    return kind_of_config(encoder=str(encoder), device="cpu", push_to_hub=False, **(values | changes))


def train(config: Any, root: Path, steps: int = 12) -> Trained:
    """Train as lerobot-train does, on the same frames and the same noise in every step."""
    torch.manual_seed(0)
    meta = LeRobotDatasetMetadata("local/reach", root=root)
    times = resolve_delta_timestamps(config, meta)
    dataset = LeRobotDataset("local/reach", root=root, delta_timestamps=times, video_backend="pyav")
    policy = make_policy(config, ds_meta=meta)
    pre, post = make_pre_post_processors(config, dataset_stats=meta.stats)
    items = [dataset[k] for k in range(0, 24, 3)]
    tensors = [name for name, value in items[0].items() if isinstance(value, torch.Tensor)]
    batch = {name: torch.stack([item[name] for item in items]) for name in tensors}
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    policy.train()
    losses = []
    for _ in range(steps):
        torch.manual_seed(1)
        loss, _ = policy.forward(pre(dict(batch)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Trained(policy, pre, post, batch, losses)


def state_of(backbone: EncoderBackbone) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.encoder.backbone.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tune", ["frozen", "last", "all"])
def test_a_policy_learns_and_its_encoder_trains_only_if_tuned(kind: str, tune: str, run: Path, collected: Path) -> None:
    before = robossl.load_encoder(run).encoder.backbone.state_dict()
    trained = train(settings(kind, run, tune=tune), collected)
    assert trained.losses[-1] < 0.8 * trained.losses[0], trained.losses
    after = state_of(trained.backbone)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("running_" in name or "num_batches" in name for name in changed)
    if tune == "frozen":
        assert changed == set()
        assert not any(weight.requires_grad for weight in trained.backbone.parameters())
    elif tune == "last":
        assert changed and all(name.startswith("layer4") for name in changed)
    else:
        assert any(name.startswith("conv1") for name in changed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_sees_the_feature_map_of_the_card(kind: str, run: Path, collected: Path) -> None:
    trained = train(settings(kind, run), collected, steps=0)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 48, 80, 3), np.uint8)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    expected = robossl.load_encoder(run, outputs=["dense"])(frames)["dense"]
    with torch.no_grad():
        for given in (pixels, pixels.float() / 255):
            found = trained.backbone(trained.pre({CAMERA: given})[CAMERA])
            found = found["feature_map"] if kind == "act" else found
            assert np.array_equal(found.numpy(), expected)


def test_a_vit_gives_its_patches(tmp_path: Path, collected: Path) -> None:
    encoder = build_encoder(EncoderConfig("test_vit", input_hw=(160, 160)))
    save_encoder(encoder, tmp_path / "vit", extra={"method": None, "step": 0, "data": []})
    assert train(settings("act", tmp_path / "vit"), collected, steps=1).backbone.shape == (64, 10, 10)


def test_a_policy_does_not_see_the_true_state(run: Path, collected: Path) -> None:
    features = LeRobotDatasetMetadata("local/reach", root=collected).features
    assert "observation.environment_state" in features
    blind = train(settings("act", run), collected, steps=1).policy.config
    assert set(blind.input_features) == {CAMERA, "observation.state"}
    sees = train(settings("act", run, use_environment_state=True), collected, steps=1).policy.config
    assert "observation.environment_state" in sees.input_features


ACTS = """
import sys, numpy as np, torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.import_utils import register_third_party_plugins

folder, observation, out = sys.argv[1:]
register_third_party_plugins()
config = PreTrainedConfig.from_pretrained(folder)
policy = get_policy_class(config.type).from_pretrained(folder)
pre, post = make_pre_post_processors(config, pretrained_path=folder)
torch.manual_seed(3)
given = np.load(observation, allow_pickle=False)
actions = [post(policy.select_action(pre({name: torch.from_numpy(given[name]) for name in given}))) for _ in range(6)]
np.save(out, torch.stack(actions).numpy())
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tune", ["frozen", "all"])
def test_a_saved_policy_acts_the_same_in_a_new_process_without_the_run(
    kind: str, tune: str, run: Path, collected: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "mine")
    trained = train(settings(kind, tmp_path / "mine", tune=tune), collected, steps=2)
    shutil.rmtree(tmp_path / "mine")
    observation = {name: trained.batch[name][:1] for name in (CAMERA, "observation.state")}
    if kind == "diffusion":  # a batch of it has two steps of observations
        observation = {name: value[:, -1] for name, value in observation.items()}
    trained.policy.eval()
    trained.policy.reset()
    torch.manual_seed(3)
    expected = [trained.post(trained.policy.select_action(trained.pre(dict(observation)))) for _ in range(6)]
    for part in (trained.policy, trained.pre, trained.post):
        part.save_pretrained(tmp_path / "saved")
    np.savez(tmp_path / "observation.npz", **{name: value.numpy() for name, value in observation.items()})
    arguments = [tmp_path / "saved", tmp_path / "observation.npz", tmp_path / "actions.npy"]
    python([sys.executable, "-c", ACTS, *arguments], tmp_path)
    found = np.load(tmp_path / "actions.npy", allow_pickle=False)
    assert found.std() > 0
    assert np.array_equal(found, torch.stack(expected).numpy())


def python(line: list[Any], home: Path) -> str:
    """Run a command offline, in one thread, with a home of its own for lerobot."""
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hf"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, timeout=600, env=os.environ | own)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_lerobot_train_knows_the_policies_and_resumes(kind: str, run: Path, collected: Path, tmp_path: Path) -> None:
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in KINDS[kind][1].items()}
    out = tmp_path / "out"
    python(
        [
            *(Path(sys.executable).with_name("lerobot-train"), f"--policy.type=robossl_{kind}"),
            *(f"--policy.encoder={run}", "--policy.tune=last", "--policy.device=cpu", "--policy.push_to_hub=false"),
            *(f"--policy.{name}={json.dumps(value)}" for name, value in values.items()),
            *("--dataset.repo_id=local/reach", f"--dataset.root={collected}", "--dataset.video_backend=pyav"),
            *(f"--output_dir={out}", "--steps=2", "--save_freq=1", "--batch_size=4", "--num_workers=0"),
        ],
        tmp_path,
    )
    saved = json.loads((out / "checkpoints" / "last" / "pretrained_model" / "config.json").read_text())
    assert saved["type"] == f"robossl_{kind}"
    assert saved["encoder_record"]["digest"] == robossl.load_encoder(run).card.digest
    assert saved["encoder_record"]["is_changed"] is True
    config = out / "checkpoints" / "000001" / "pretrained_model" / "train_config.json"
    python(
        [Path(sys.executable).with_name("lerobot-train"), f"--config_path={config}", "--resume=true", "--steps=3"],
        tmp_path,
    )
    assert (out / "checkpoints" / "000003").is_dir()


def test_wrong_settings_are_refused(run: Path, collected: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown tune 'some'; choose frozen, last, all"):
        settings("act", run, tune="some")
    twice = {"VISUAL": NormalizationMode.MEAN_STD}
    with pytest.raises(InputError, match=r"normalises its frames itself; set it to IDENTITY"):
        settings("diffusion", run, normalization_mapping=twice)
    with pytest.raises(InputError, match=r"vision_backbone is 'resnet50', but the encoder replaces"):
        settings("act", run, vision_backbone="resnet50")
    with pytest.raises(InputError, match=r"no encoder; set --policy.encoder"):
        train(settings("act", ""), collected, steps=0)
    with pytest.raises(InputError, match=r"grpc://127.0.0.1:1/m has no weights that a policy can train"):
        train(settings("act", "grpc://127.0.0.1:1/m"), collected, steps=0)


def test_an_exported_model_and_another_encoder_are_refused(run: Path, collected: Path, tmp_path: Path) -> None:
    robossl.export(run, out=tmp_path / "models", name="mine")
    with pytest.raises(InputError, match=r"name the run or encoder folder that it was exported from"):
        train(settings("act", tmp_path / "models" / "mine"), collected, steps=0)
    policy = train(settings("act", run), collected, steps=0).policy
    record = policy.config.encoder_record
    with pytest.raises(InputError, match=r"has other weights \(digest"):
        train(settings("act", run, encoder_record=record | {"digest": "0" * 64}), collected, steps=0)
    policy.save_pretrained(tmp_path / "saved")
    other = dataclasses.replace(policy.config, encoder="runs/other")
    with pytest.raises(InputError, match=r"keeps its encoder .*mine, but policy.encoder is runs/other"):
        type(policy).from_pretrained(tmp_path / "saved", config=other)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["encoder_record"]["digest"] = "0" * 64
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"the saved policy holds other weights"):
        type(policy).from_pretrained(tmp_path / "saved")
