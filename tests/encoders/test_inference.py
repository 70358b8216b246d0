"""Encode in torch: the features of the encoder, in batches, from folders; the random reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robossl.encoders.cards import torch_card
from robossl.encoders.encoder import EncoderConfig, build_encoder, named_outputs, save_encoder
from robossl.encoders.inference import TorchEncoder, load_encoder, random_encoder
from robossl.encoders.weights import weights_digest
from robossl.errors import InputError
from robossl.exporting.parity import natural_frames

RESNET = EncoderConfig("test_resnet", input_hw=(64, 64))
VIT = EncoderConfig("test_vit", input_hw=(64, 64))
FRAMES = natural_frames(5, (50, 70), seed=0)


@pytest.mark.parametrize("config", [RESNET, VIT], ids=["resnet", "vit"])
def test_it_gives_the_encoders_features_in_any_batches(config: EncoderConfig) -> None:
    encoder = build_encoder(config)
    card = torch_card(encoder, name="a", extra={})
    with torch.no_grad():
        wanted = named_outputs(encoder.eval()(encoder.preprocess(torch.from_numpy(FRAMES))))
    encoder.train()
    got = TorchEncoder(encoder, card, batch_size=2)(FRAMES)
    assert encoder.training, "left as it was"
    assert list(got) == list(wanted) == list(card.outputs)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value.numpy(), rtol=1e-4, atol=1e-5)
        assert got[name].dtype == np.float32
        assert got[name].shape == (5, *card.outputs[name].shape[1:])


def test_a_run_folder_and_its_encoder_folder_are_the_same(tmp_path: Path) -> None:
    encoder = build_encoder(RESNET)
    extra = {
        "method": "simclr",
        "step": 7,
        "config_hash": "ab",
        "data": [
            {"store": "s1", "licences": ["MIT", "CC-BY-NC-4.0"]},
            {"store": "s2", "licences": ["MIT", "CC-BY-4.0"]},
        ],
    }
    save_encoder(encoder, tmp_path / "run" / "encoder", extra=extra)
    first, second = load_encoder(tmp_path / "run"), load_encoder(str(tmp_path / "run" / "encoder"))
    assert first.card == second.card
    card = first.card
    assert (card.name, card.version, card.method, card.step) == ("run", 0, "simclr", 7)
    assert card.digest == weights_digest(encoder.backbone.state_dict())
    assert card.data == ("s1", "s2")
    assert card.licences == ("CC-BY-4.0", "CC-BY-NC-4.0", "MIT")
    assert card.warnings == ("data under CC-BY-NC-4.0: not for commercial use",)
    np.testing.assert_array_equal(first(FRAMES)["pooled"], second(FRAMES)["pooled"])


def test_what_is_not_known_of_the_data_is_a_warning() -> None:
    encoder = build_encoder(RESNET)
    assert torch_card(encoder, name="a", extra={}).warnings == ()
    assert "not recorded" in torch_card(encoder, name="a", extra={"method": "simsiam"}).warnings[0]
    encoder.config = replace(RESNET, init="/home/me/start.pt")
    assert torch_card(encoder, name="a", extra={}).warnings == (
        "training started from start.pt, whose licence is not recorded",
    )


def test_the_random_reference_is_fixed_by_its_seed_and_alive() -> None:
    torch.manual_seed(5)
    one, same, other = (random_encoder(RESNET, seed)(FRAMES)["pooled"] for seed in (1, 1, 2))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1)), "the global generator is left alone"
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    dead = build_encoder(RESNET)
    alive = random_encoder(RESNET, 1)
    assert RESNET.zero_init_last
    assert not dead.backbone.layer1[0].bn2.weight.any()
    assert isinstance(alive, TorchEncoder)
    assert alive.encoder.backbone.layer1[0].bn2.weight.all()


@pytest.mark.parametrize(
    "frames",
    [FRAMES.astype(np.float32), FRAMES[0], FRAMES[..., :1], FRAMES[:0]],
    ids=["float", "one frame", "grey", "none"],
)
def test_other_arrays_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"frames must be uint8 RGB"):
        random_encoder(RESNET, 0)(frames)


def test_a_list_of_frames_is_refused_with_the_way_to_stack_it() -> None:
    encoder = random_encoder(EncoderConfig("test_resnet", input_hw=(32, 32)), seed=0, outputs=["pooled"])
    with pytest.raises(InputError, match=r"got list; stack arrays of equal size with np\.stack\(frames\)"):
        encoder(list(FRAMES))  # type: ignore[arg-type]
    assert encoder(np.stack(list(FRAMES)))["pooled"].shape == (len(FRAMES), 96)


def test_unknown_places_and_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no encoder; pass a run folder"):
        load_encoder(tmp_path)
    with pytest.raises(InputError, match="did you mean 'keypoints'"):
        random_encoder(RESNET, 0, outputs=["keypoint"])
    assert list(random_encoder(VIT, 0, outputs=["cls", "pooled"])(FRAMES)) == ["cls", "pooled"]
