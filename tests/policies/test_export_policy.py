"""Policies with their encoder as one model: they act as in torch, from a file and from a server, in one call each."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy import ndarray
from robossl_client._proto import inference_pb2 as pb
from robossl_client.aio import AsyncEncoderClient
from robossl_client.card import EncoderCard
from robossl_client.client import EncoderClient
from robossl_client.errors import EncoderChangedError, RequestError
from robossl_serving.server import EncoderServer, ServerSettings
from safetensors.torch import load_model
from serving_kit import FRAMES, calling, infer_request, output, server_process, serving, status_of

import robossl
from robossl.cli.main import main
from robossl.encoders.onnx_session import open_session, session_providers
from robossl.encoders.providers import GpuOptions
from robossl.encoders.run_session import session_runner
from robossl.measure.subjects import open_subject
from robossl.policies.entrants import EntrantOptions, make_entrants
from robossl.policies.kept import KeptWork
from robossl.policies.policy import Policy, PolicyActor
from robossl.policies.result import TransferResult
from robossl.policies.simulator import RolloutView, open_simulator

ENCODER = "random:test_resnet"
QUICK: dict[str, Any] = {
    "env": "kit/Chase-v0", "module": ("chase_env",), "workers": 1, "action_noise": 1.0, "demos": 2, "seeds": 1,
    "rollouts": 4, "steps": 20, "network_steps": 1,
}  # fmt: skip
STATE = np.array([[-0.5], [0.0], [0.7]], np.float32)  # one for each of FRAMES


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TransferResult]:
    """A measurement of policies that see a frame and the robot's own state."""
    out = tmp_path_factory.mktemp("transfer")
    return out, robossl.transfer(ENCODER, out=out, proprioception=True, **QUICK)


@pytest.fixture(scope="module")
def models(measured: tuple[Path, TransferResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the policy `chase`."""
    out = tmp_path_factory.mktemp("models")
    assert main(["export-policy", str(measured[0]), "--out", str(out), "--name", "chase", "--seed", "0"]) == 0
    return out


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[EncoderServer]:
    with serving(models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


def act_in_torch(out: Path, result: TransferResult, frames: ndarray, own: ndarray) -> ndarray:
    """Return actions of the kept policy, as rollouts compute them."""
    proprioception = result.settings.proprioception
    options = EntrantOptions(result.settings.head, result.settings.tune, proprioception, "cpu")
    inputs = make_entrants([ENCODER], options, has_own_state=True)[0].inputs(0)
    vision = None if inputs.trained is None else inputs.trained((32, 32))
    shape = inputs.features(frames[:1]).shape[1:] if vision is None else vision.shape
    policy = Policy(inputs.head, vision, shape, vector_dim=own.shape[1] * proprioception, stack=1, action_dim=1)
    row = result.rows[0]
    load_model(policy, KeptWork(out, result.settings).place(row.name, row.digest, 0) / "policy.safetensors")
    slots = np.arange(len(frames))
    view = RolloutView(slots, slots, True, frames, own, own)
    return PolicyActor(policy, inputs, stack=1, device="cpu")(view)


def address(server: EncoderServer) -> str:
    return f"127.0.0.1:{server.port}"


def test_it_follows_the_policy_in_torch(models: Path, measured: tuple[Path, TransferResult]) -> None:
    policy = robossl.load_policy(models / "chase")
    wanted = act_in_torch(*measured, FRAMES, STATE)
    assert wanted.shape == (3, 1) and wanted.std() > 1e-3
    np.testing.assert_allclose(policy(FRAMES, STATE), wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.abs(policy(FRAMES, STATE + 1) - wanted).max() > 1e-3, "the state counts"
    about = policy.card.policy
    assert about is not None and about.state is not None
    assert about.state.shape == ("batch", 1) and policy.card.outputs["action"].shape == ("batch", 1)
    assert (about.env, about.encoder, about.seed, about.demos) == ("kit/Chase-v0", "test_resnet", 0, 2)
    assert np.allclose((about.action_low, about.action_high), [[-0.4], [0.2]])
    assert (about.successes, about.trials) == (sum(measured[1].rows[0].scores[0].by_seed[0]), 4)


def test_rollouts_through_a_server_are_those_of_torch(models: Path, measured: tuple[Path, TransferResult]) -> None:
    out, result = measured
    row, num_calls = result.rows[0], 0
    kept = KeptWork(out, result.settings)
    local = kept.read_rollouts(kept.place(row.name, row.digest, 0), "clean", 0, result.scenes)
    with (
        server_process(models) as (_, port),
        EncoderClient(f"127.0.0.1:{port}", robot="arm", outputs=("action",), deadline_ms=20_000) as client,
        open_simulator("kit/Chase-v0", workers=1, image_size=96, module=("chase_env",)) as simulator,
    ):

        def act(view: RolloutView) -> ndarray:
            nonlocal num_calls
            num_calls += 1
            return client.encode(view.frames, state=view.proprioception).features["action"]

        played = simulator.play(act, scenes=result.scenes, strengths={}, watch=lambda _: None)
        (stats,) = client._method("ModelStatistics")(pb.ModelStatisticsRequest(name="chase")).model_stats
    assert local is not None
    assert [(each.success, each.num_steps) for each in played] == [(each.success, each.num_steps) for each in local]
    assert stats.inference_stats.success.count == num_calls, "one call gives one action"


def test_every_client_sends_the_state(server: EncoderServer, models: Path) -> None:
    policy = robossl.load_policy(models / "chase")
    wanted = policy(FRAMES, STATE)
    with EncoderClient(address(server), robot="arm", deadline_ms=20_000) as client:
        assert client.card.policy == policy.card.policy
        found = client.encode(FRAMES, state=STATE.tolist()).features
        assert found.keys() == {"pooled", "action"}
        np.testing.assert_allclose(found["action"], wanted, rtol=1e-4)
        with client.latest() as stream:
            stream.send(FRAMES[:1], state=STATE[:1])
            reply = stream.take(wait_ms=20_000)
            assert reply is not None
            np.testing.assert_allclose(reply.features["action"], wanted[:1], rtol=1e-4)
    with EncoderClient(address(server), outputs=("action",), shared_memory=True) as client:
        frames, states = np.tile(FRAMES, (24, 1, 1, 1)), np.linspace(-1, 1, 72, dtype=np.float32)[:, None]
        np.testing.assert_allclose(client(frames, state=states)["action"], policy(frames, states), rtol=1e-3)
    served = robossl.load_policy(f"grpc://{address(server)}/chase")
    np.testing.assert_allclose(served(FRAMES, STATE), wanted, rtol=1e-4)

    async def ask() -> ndarray:
        async with AsyncEncoderClient(address(server)) as client:
            return (await client(FRAMES, state=STATE))["action"]

    np.testing.assert_allclose(asyncio.run(ask()), wanted, rtol=1e-4)


def test_it_is_an_encoder_too(server: EncoderServer, models: Path, tmp_path: Path) -> None:
    wanted = robossl.load_encoder(models / "chase")(FRAMES)
    assert wanted.keys() == {"pooled"}
    np.testing.assert_allclose(robossl.load_encoder(f"grpc://{address(server)}")(FRAMES)["pooled"], wanted["pooled"])
    with EncoderClient(address(server), outputs=("pooled",)) as client:
        np.testing.assert_allclose(client(FRAMES)["pooled"], wanted["pooled"])
    subject = open_subject(str(models / "chase"))
    np.testing.assert_allclose(subject(FRAMES)["pooled"], wanted["pooled"])
    assert subject.backbone is not None and subject.backbone.name == "test_resnet"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "got none: pass it, or ask for other outputs than 'action'"),
        (STATE[:1], r"float32 \(3, 1\), one row for each frame; got \(1, 1\)"),
        (STATE[:, 0], r"got \(3,\)"),
        (STATE * np.nan, "got nan or infinity"),
        ("up", "state must be an array of numbers"),
    ],
)
def test_a_wrong_state_is_refused_in_one_line(
    state: Any, said: str, server: EncoderServer, models: Path, tiny_models: Path
) -> None:
    with pytest.raises(robossl.InputError, match=said) as local:
        robossl.load_policy(models / "chase")(FRAMES, state)
    with EncoderClient(address(server)) as client, pytest.raises(RequestError, match=said) as remote:
        client(FRAMES, state=state)
    assert "\n" not in str(remote.value) and str(remote.value) == str(local.value)
    if isinstance(state, ndarray):
        with pytest.raises(robossl.InputError, match="tiny takes no state, only frames; leave the state out"):
            robossl.encoders.inference.OnnxEncoder(tiny_models / "tiny" / "1")(FRAMES, state)


def with_state(message: Any, state: ndarray, datatype: str = "FP32") -> Any:
    """Add a state to a request."""
    message.inputs.add(name="state", datatype=datatype, shape=state.shape)
    message.raw_input_contents.append(state.tobytes())
    return message


def typed(message: Any, state: ndarray) -> Any:
    """Add a state as a list of numbers, in a request whose frames are one too."""
    del message.raw_input_contents[:]
    message.inputs[0].contents.uint_contents.extend(FRAMES.ravel().tolist())
    message.inputs.add(name="state", datatype="FP32", shape=state.shape).contents.fp32_contents.extend(state.ravel())
    return message


def test_the_server_checks_the_state_itself(server: EncoderServer, models: Path) -> None:
    def ask() -> Any:
        return infer_request(model="chase")

    wanted = robossl.load_policy(models / "chase")(FRAMES, STATE)
    with calling(server) as call:
        for message in (with_state(ask(), STATE), typed(ask(), STATE)):
            np.testing.assert_allclose(output(call("ModelInfer", message), "action"), wanted, rtol=1e-4)
        for message, said in (
            (ask(), "the action of chase needs a state, float32 (3, 1), one row for each frame; got none"),
            (with_state(ask(), STATE[:2]), "got (2, 1)"),
            (with_state(ask(), STATE.astype(np.float64), "FP64"), "state is FP32, got 'FP64'"),
            (with_state(ask(), STATE.astype(np.float16)), "the shape of state says 3 values of 4 bytes, 6 bytes were"),
            (with_state(ask(), np.zeros((3, 2**20), np.float16)), "at most 262144 values"),
            (with_state(with_state(ask(), STATE), STATE), "the model takes the inputs 'frames' and 'state'"),
        ):
            status, text = status_of(lambda message=message: call("ModelInfer", message))
            assert status == "INVALID_ARGUMENT" and said in text and "\n" not in text, text
        about = call("ModelMetadata", pb.ModelMetadataRequest(name="chase"))
        assert [(each.name, each.datatype, list(each.shape)) for each in about.inputs] == [
            ("frames", "UINT8", [-1, -1, -1, 3]),
            ("state", "FP32", [-1, 1]),
        ]


def test_a_policy_is_pinned_by_its_digest(server: EncoderServer, models: Path) -> None:
    card = EncoderCard.read(models / "chase" / "1" / "card.json")
    assert card.policy is not None and card.digest != card.policy.encoder_digest
    with EncoderClient(address(server), digest=card.digest) as client:
        assert client.encode(FRAMES, state=STATE).digest == card.digest
    with pytest.raises(EncoderChangedError, match="wanted are"):
        EncoderClient(address(server), digest=card.policy.encoder_digest)


def test_the_cards_of_encoders_stay_as_they_were(models: Path, tiny_models: Path) -> None:
    policy, encoder = ((each / "1" / "card.json").read_text() for each in (models / "chase", tiny_models / "tiny"))
    assert json.loads(encoder)["schema"] == "robossl.card/1" and "policy" not in json.loads(encoder)
    assert json.loads(policy)["schema"] == "robossl.policy_card/1"
    for text in (policy, encoder):
        assert EncoderCard.from_json(text).to_json() == text


@pytest.mark.slow
def test_a_fixed_batch_is_filled_up_and_bound(measured: tuple[Path, TransferResult], tmp_path: Path) -> None:
    fixed = robossl.export_policy(measured[0], out=tmp_path, fixed_hw=(60, 80), fixed_batch=2, outputs=())
    assert fixed == tmp_path / "random-test_resnet-Chase-v0" / "1"
    policy = robossl.load_policy(fixed)
    assert list(policy.card.outputs) == ["action"]
    wanted = act_in_torch(*measured, FRAMES, STATE)
    np.testing.assert_allclose(policy(FRAMES, STATE), wanted, atol=1e-3 * np.abs(wanted).max())
    run = session_runner(open_session(fixed / "model.onnx"), policy.card, bind_to="cpu")
    for at in range(2):
        found = run(FRAMES[at : at + 2], ("action",), STATE[at : at + 2])["action"]
        np.testing.assert_allclose(found, wanted[at : at + 2], atol=1e-3 * np.abs(wanted).max())


def test_tensorrt_takes_a_state_in_one_shape_only(models: Path) -> None:
    card = robossl.load_policy(models / "chase").card
    with pytest.raises(robossl.InputError, match="export chase with --fixed-hw H W --fixed-batch 1"):
        session_providers("tensorrt", GpuOptions(), card, max_batch=8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--row", "test_resnte"], "unknown row of"),
        (["--row", "state"], "state is a control, and only policies with an encoder are exported: random test_resnet"),
        (["--seed", "1"], "has policies of the seeds 0, got 1"),
        (["--encoder", "nowhere"], "if its encoder was moved, name the place with --encoder"),
        (["--encoder", "random:test_vit"], "were trained with"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    words: list[str],
    said: str,
    measured: tuple[Path, TransferResult],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["export-policy", str(measured[0]), *words, "--out", str(tmp_path / "models")]) == 2
    error = capfd.readouterr().err.strip()
    assert said in error and "\n" not in error
    assert not (tmp_path / "models").exists()


def test_several_frames_or_a_damaged_policy_are_refused(measured: tuple[Path, TransferResult], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(measured[0], tmp_path / "copied"))
    weights = next(copied.rglob("random_test_resnet*/**/policy.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(robossl.InputError, match=r"policy\.safetensors is not the policy .*; measure it again"):
        robossl.export_policy(copied, out=tmp_path / "models")
    result = copied / "transfer.json"
    given = result.read_text()
    result.write_text(given.replace('"source": "random:test_resnet"', '"source": "grpc://robot:1/mine"'))
    with pytest.raises(robossl.InputError, match="whose weights are not at hand; measure its run or encoder folder"):
        robossl.export_policy(copied, out=tmp_path / "models")
    result.write_text(given.replace('"stack": 1', '"stack": 3'))
    with pytest.raises(robossl.InputError, match=r"see 3 frames at once, .*; measure with --stack 1 to export"):
        robossl.export_policy(copied, out=tmp_path / "models")


@pytest.mark.slow
def test_an_encoder_that_was_trained_with_its_policy(tmp_path: Path) -> None:
    out = tmp_path / "transfer"
    result = robossl.transfer(ENCODER, out=out, tune="last", head="keypoints", **{**QUICK, "rollouts": 1})
    version = robossl.export_policy(out, out=tmp_path / "models", outputs=("dense", "pooled"))
    policy, encoder = robossl.load_policy(version), robossl.load_encoder(version)
    assert policy.card.policy is not None and policy.card.policy.state is None
    wanted = act_in_torch(out, result, FRAMES, np.zeros((3, 1), np.float32))
    np.testing.assert_allclose(policy(FRAMES), wanted, atol=1e-4 * np.abs(wanted).max())
    before = robossl.encoders.inference.random_encoder(robossl.encoders.encoder.EncoderConfig("test_resnet"), 0)
    assert np.abs(encoder(FRAMES)["dense"] - before(FRAMES)["dense"]).max() > 1e-5, "the last stage was trained"
    assert policy.card.parity is not None and policy.card.parity.outputs.keys() == {"dense", "pooled", "action"}
