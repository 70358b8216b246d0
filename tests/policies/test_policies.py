"""Heads, networks, random shifts and frame stacks of policies; intervals of shares; nuisances of the probes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from chase_env import read_places

from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.measure.proportions import wilson_interval
from robossl.measure.subjects import pixels_reference
from robossl.policies.heads import HEADS, resolve_head
from robossl.policies.networks import SmallConvNet, Tune, TunedEncoder
from robossl.policies.nuisances import add_nuisance
from robossl.policies.policy import PolicyActor, PolicyInputs, Standardise
from robossl.policies.score import paired_interval
from robossl.policies.simulator import Demonstrations, RolloutView, open_simulator
from robossl.policies.train import frames_before, shift_frames, train_policy


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe, Statistics in Medicine 1998, table I, method 3; and 6 of 6.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (6, 6, 0.6097, 1),
    ],
)
def test_wilson_intervals_are_those_of_the_literature(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_a_paired_interval_covers_scenes_and_seeds() -> None:
    assert paired_interval(np.zeros((2, 30))) == (0, 0, 0)
    scenes = np.tile(np.arange(40) < 20, (3, 1)).astype(float)
    value, low, high = paired_interval(scenes)
    assert value == 0.5 and low == pytest.approx(0.34, abs=0.04) and high == pytest.approx(0.66, abs=0.04)
    one_good_seed = np.repeat([[1.0], [0.0]], 40, axis=1)
    assert paired_interval(one_good_seed) == (0.5, 0, 1)  # all scenes agree, but the seeds do not


@pytest.mark.parametrize("name", HEADS)
def test_a_head_reads_where_something_is(name: str) -> None:
    torch.manual_seed(0)
    head_type = resolve_head(name)
    dense = torch.rand(128, 3, 6, 8)
    rows, columns = torch.randint(6, (128,)), torch.randint(8, (128,))
    dense[torch.arange(128), 0, rows, columns] += 20
    features = dense if head_type.reads == "dense" else torch.stack([rows, columns, rows], 1).float()
    standard = Standardise(features.shape[1])
    standard.fit(features)
    features = standard(features)
    head = head_type(tuple(features.shape[1:]))
    net = torch.nn.Sequential(head, torch.nn.Linear(head.dim, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    wanted = torch.stack([rows / 6, columns / 8], 1)
    optim = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(200):
        loss = (net(features) - wanted).square().mean()
        optim.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optim.step()
    assert loss < 0.01 < wanted.var()


@pytest.mark.parametrize("tune", ["last", "all"])
def test_tuning_trains_the_last_stage_or_all(tune: Tune) -> None:
    encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32)))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    vision = TunedEncoder(encoder, tune, "pooled").train()
    frames = torch.randint(0, 255, (4, 32, 32, 3), dtype=torch.uint8)
    vision(frames).square().sum().backward()
    moved = {name for name, each in vision.encoder.named_parameters() if each.grad is not None and each.grad.any()}
    stem = {name for name in moved if ".conv1." in name and "layer" not in name}
    assert moved and bool(stem) == (tune == "all")
    for name, value in vision.encoder.state_dict().items():  # batch-norms keep their statistics
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_shifts_move_a_stack_alike_and_repeat_the_border() -> None:
    torch.manual_seed(0)
    frames = torch.arange(42 * 42).reshape(1, 1, 42, 42, 1).repeat(64, 2, 1, 1, 3)
    shifted = shift_frames(frames)
    assert torch.equal(shifted[:, 0], shifted[:, 1])
    moves = {tuple(divmod(int(each), 42)) for each in shifted[:, 0, 20, 20, 0]}
    assert {row - 20 for row, _ in moves} == {column - 20 for _, column in moves} == {-2, -1, 0, 1, 2}
    assert set(shifted[:, 0, 0, 0, 0].tolist()) <= {42 * row + column for row in (0, 1, 2) for column in (0, 1, 2)}


def test_a_stack_never_reaches_into_another_episode() -> None:
    starts = np.array([1, 0, 0, 1, 0], bool)
    assert frames_before(starts, 3).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [3, 3, 3], [3, 3, 4]]


def view(frames: Any, slots: list[int], *, started: bool) -> RolloutView:
    empty = np.zeros((len(slots), 0), np.float32)
    return RolloutView(np.array(slots), np.array(slots), started, frames, empty, empty)


def test_a_policy_acts_as_it_was_trained(tmp_path: Any) -> None:
    """The stack of a rollout holds the same frames as that of the demonstrations, also after episodes have ended."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    starts = np.array([1, 0, 0, 1, 0, 0], bool)
    empty = np.zeros((6, 0), np.float32)
    actions = random.uniform(-1, 1, (6, 1)).astype(np.float32)
    demos = Demonstrations(frames, empty, empty, actions, starts, num_episodes=2, num_failed=0)
    for inputs in (PolicyInputs("none", "mlp", pixels_reference()), PolicyInputs("none", "mlp", trained=SmallConvNet)):
        policy = train_policy(inputs, demos, stack=2, steps=5, seed=0, device="cpu").policy.eval()
        past = frames_before(starts, 2)
        with torch.inference_mode():
            wanted = policy(torch.from_numpy(inputs.features(frames)[past]), torch.from_numpy(empty)).numpy()
        actor = PolicyActor(policy, inputs, stack=2, device="cpu")
        np.testing.assert_allclose(actor(view(frames[[0, 3]], [0, 1], started=True)), wanted[[0, 3]], atol=1e-5)
        np.testing.assert_allclose(actor(view(frames[[1, 4]], [0, 1], started=False)), wanted[[1, 4]], atol=1e-5)
        np.testing.assert_allclose(actor(view(frames[[5]], [1], started=False)), wanted[[5]], atol=1e-5)


def test_demonstrations_and_rollouts_of_an_environment() -> None:
    with open_simulator("kit/Chase-v0", workers=2, image_size=32, module=("chase_env",)) as simulator:
        demos = simulator.demonstrate(range(30), episodes=4, noise=1.0)
        assert demos.starts.sum() == demos.num_episodes == 4 and demos.frames.shape[1:] == (32, 32, 3)
        state = read_places(demos.frames)
        np.testing.assert_allclose(state, demos.state, atol=0.05)
        np.testing.assert_allclose(demos.proprioception[:, 0], demos.state[:, 0])
        # The label is the expert's own action, from -1 to 1 over the range of the environment's actions.
        wanted = (np.clip(demos.state[:, 1] - demos.state[:, 0], -0.4, 0.2) + 0.1) / 0.3
        np.testing.assert_allclose(demos.actions[:, 0], wanted, atol=1e-5)

        def act(seen: RolloutView) -> Any:
            read = read_places(seen.frames)
            return (np.clip(read[:, 1:] - read[:, :1], -0.4, 0.2) + 0.1) / 0.3

        scenes, ended = range(1000, 1040), []
        clean = simulator.play(act, scenes=scenes, strengths={}, watch=ended.append)
        assert [each.scene for each in clean] == list(scenes) and sum(ended) == 40
        assert all(each.success and each.final_success for each in clean)
        still = simulator.play(
            lambda seen: np.full((len(seen.slots), 1), 1 / 3), scenes=scenes, strengths={}, watch=ended.append
        )
        lost = [each for each in still if not each.success]
        assert lost and {each.num_steps for each in lost} == {20} and all(each.total_reward < 0 for each in lost)
        dark = simulator.play(act, scenes=scenes, strengths={"dark": 5}, watch=ended.append)
        assert dark != clean


def test_a_factor_of_the_probes_changes_what_the_policy_sees() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    seen: list[Any] = []

    def act(given: RolloutView) -> Any:
        seen.append(given.frames)
        return np.zeros((3, 1), np.float32)

    with open_simulator("kit/Chase-v0", workers=1, image_size=32, module=("chase_env",)) as simulator:
        assert add_nuisance(act, simulator, "clean", 0)[1] == {}
        assert add_nuisance(act, simulator, "dark", 2)[1] == {"dark": 2}
        changed, strengths = add_nuisance(act, simulator, "hue", 5)
    given = view(frames, [0, 1, 2], started=True)
    changed(given)
    changed(replace(given, started=False))
    assert strengths == {} and not np.array_equal(seen[0], frames) and np.array_equal(seen[0], seen[1])
