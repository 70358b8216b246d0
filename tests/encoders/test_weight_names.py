"""Weight names: official checkpoints load in their wrappers, with what they hold beside a backbone; others do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.mlp import SwiGLUPacked
from torch import Tensor

from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.encoders.weight_names import load_weights
from robossl.encoders.weights import weights_digest
from robossl.errors import InputError

State = dict[str, Tensor]
HW = (64, 64)
ONE, TWO = torch.zeros(1), torch.zeros(2, 2)


def state_of(backbone: str) -> State:
    torch.manual_seed(5)
    return build_encoder(EncoderConfig(backbone, input_hw=HW)).backbone.state_dict()


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


VIT, CNN = state_of("test_vit"), state_of("resnet10t")
OTHER_VIT, OTHER_CNN = ({name: value + 1 for name, value in state.items()} for state in (VIT, CNN))
MAE = {"mask_token": ONE, "decoder_pos_embed": TWO, "decoder_embed.weight": TWO, "decoder_blocks.0.norm1.weight": ONE}
MAE |= {"decoder_norm.weight": ONE, "decoder_pred.bias": ONE}
DINO_HEAD = {"head.mlp.0.weight": TWO, "head.last_layer.weight_g": ONE}

LOADED = {
    "DINO, the backbone alone": (VIT, "", VIT),
    "DINO, the teacher": (
        {"student": under("module.backbone.", OTHER_VIT), "teacher": under("backbone.", VIT) | DINO_HEAD},
        "#teacher",
        VIT,
    ),
    "DINOv2": (VIT | {"mask_token": ONE}, "", VIT),
    "DINOv2 in training, blocks in chunks": (
        {
            "teacher": under("backbone.", {k.replace("blocks.", "blocks.0."): v for k, v in VIT.items()})
            | {"backbone.mask_token": ONE, "dino_head.mlp.0.weight": TWO, "ibot_head.last_layer.weight": TWO}
        },
        "",
        VIT,
    ),
    "iBOT": ({"state_dict": VIT | {"masked_embed": ONE}}, "", VIT),
    "MAE, the encoder": ({"model": VIT}, "", VIT),
    "MAE with its decoder": ({"model": VIT | MAE}, "", VIT),
    "SimMIM": ({"model": under("encoder.", VIT | {"mask_token": ONE}) | {"decoder.0.weight": TWO}}, "", VIT),
    "MoCo v3": (
        {
            "epoch": 300,
            "state_dict": under("module.base_encoder.", VIT | {"head.0.weight": TWO, "head.1.running_mean": ONE})
            | under("module.momentum_encoder.", OTHER_VIT)
            | {"module.predictor.0.weight": TWO},
            "optimizer": {"state": {0: {"exp_avg": ONE}}, "param_groups": [{"lr": 0.1}]},
        },
        "#state_dict.module.base_encoder",
        VIT,
    ),
    "SwAV": (under("module.", CNN | {"projection_head.0.weight": TWO, "prototypes.weight": TWO}), "", CNN),
    "SimSiam": (
        {"state_dict": under("module.encoder.", CNN | {"fc.0.weight": TWO}) | {"module.predictor.0.weight": TWO}},
        "",
        CNN,
    ),
    "Barlow Twins": ({"model": under("module.backbone.", CNN) | {"module.projector.0.weight": TWO}}, "", CNN),
    "timm while it trains": ({"state_dict": OTHER_CNN, "state_dict_ema": CNN, "epoch": 3}, "#state_dict_ema", CNN),
    "an average of torch's": (under("module.", CNN) | {"n_averaged": ONE}, "", CNN),
    "DDP of a compiled model": (under("module._orig_mod.", CNN), "", CNN),
    "blocks compiled one by one": ({k.replace(".norm1", "._orig_mod.norm1"): v for k, v in VIT.items()}, "", VIT),
    "FSDP": (
        under("_fsdp_wrapped_module.", {k.replace("attn.", "attn._fsdp_wrapped_module."): v for k, v in VIT.items()}),
        "",
        VIT,
    ),
    "DeiT III's scales": (
        {
            k.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v
            for k, v in state_of("test_vit2").items()
        },
        "",
        state_of("test_vit2"),
    ),
}
LOADED |= {
    "an optimizer that names the weights": ({"model": VIT, "optimizer": {"exp_avg": OTHER_VIT}}, "", VIT),
    "buffers of rotary positions": (VIT | {"rope.freqs_cos": TWO, "rope.freqs_sin": TWO}, "", VIT),
}
REFUSED = {
    "two encoders": (
        under("backbone.", VIT) | under("momentum_backbone.", OTHER_VIT),
        "contains several encoders; choose one",
    ),
    "a deeper one": (VIT | {"blocks.6.norm1.weight": ONE}, r"1 unexpected \(blocks\.6\.norm1\.weight\)"),
    "registers": (VIT | {"register_tokens": ONE}, r"unexpected \(register_tokens\)"),
    "a distilled one": (VIT | {"dist_token": ONE, "head_dist.weight": TWO}, r"1 unexpected \(dist_token\)"),
    "a norm before the blocks": (VIT | {"norm_pre.weight": ONE}, r"unexpected \(norm_pre\.weight\)"),
    "nan": (VIT | {"norm.bias": VIT["norm.bias"] * float("nan")}, r"holds nan or inf in norm\.bias: the run"),
    "integers": ({k: v.to(torch.int8) for k, v in VIT.items()}, r"as torch\.int8; save the weights as floats"),
    "a numbered sequence": (
        {f"{n}.{part}.conv1.weight": TWO for n in range(4) for part in range(2)} | {"0.weight": TWO},
        "does not fit test_vit",
    ),
    "no class token": ({k: v for k, v in VIT.items() if k != "cls_token"}, r"1 missing keys \(cls_token\)"),
}


@pytest.mark.parametrize("case", LOADED)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_official_checkpoints_load(case: str, suffix: str, tmp_path: Path) -> None:
    file, prefix, wanted = LOADED[case]
    path = tmp_path / f"a.{suffix}"
    if suffix == "pth":
        torch.save(file, path)
    else:
        save_file({name: value.clone() for name, value in flat(file).items()}, path)
    backbone = "resnet10t" if wanted is CNN else "test_vit2" if "gamma" in "".join(wanted) else "test_vit"
    encoder = build_encoder(EncoderConfig(backbone, input_hw=HW, init=f"{path}{prefix}"))
    assert weights_digest(encoder.backbone.state_dict()) == weights_digest(wanted)


def flat(file: dict[str, object], name: str = "") -> State:
    """The tensors of a nested checkpoint, as one that is converted to safetensors has them."""
    found: State = {}
    for key, value in file.items():
        place = f"{name}.{key}" if name else str(key)
        if isinstance(value, dict):
            found |= flat(value, place)
        elif isinstance(value, Tensor):
            found[place] = value
    return found


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_backbone_would_need_is_never_left_out(case: str, tmp_path: Path) -> None:
    file, message = REFUSED[case]
    torch.save(file, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message) as caught:
        build_encoder(EncoderConfig("test_vit", input_hw=HW, init=str(tmp_path / "a.pth")))
    assert "\n" not in str(caught.value)


def test_dinov2_with_registers_gives_the_features_of_its_own_sum() -> None:
    """Their class token has a position; timm's model adds it to the token."""
    make = {"img_size": 56, "reg_tokens": 4, "no_embed_class": True, "num_classes": 0, "patch_size": 14}
    torch.manual_seed(0)
    ours = timm.create_model("test_vit", **make).eval()
    official = {name: torch.randn_like(value) for name, value in ours.state_dict().items()}
    official["register_tokens"] = official.pop("reg_token")
    cls_position = torch.randn(1, 1, 64)
    official["pos_embed"] = torch.cat([cls_position, official["pos_embed"]], 1)
    load_weights(ours, official | {"mask_token": ONE}, name="test_vit", origin="a.pth")
    torch.testing.assert_close(ours.cls_token.detach(), official["cls_token"] + cls_position)
    torch.testing.assert_close(ours.pos_embed.detach(), official["pos_embed"][:, 1:])
    assert torch.equal(ours.reg_token, official["register_tokens"])


def test_dinov2_s_gated_layers_have_other_names() -> None:
    ours = timm.create_model("test_vit", img_size=64, num_classes=0, mlp_layer=SwiGLUPacked)
    wanted = {name: torch.randn_like(value) for name, value in ours.state_dict().items()}
    official = {name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for name, v in wanted.items()}
    load_weights(ours, official, name="test_vit", origin="a.pth")
    assert weights_digest(ours.state_dict()) == weights_digest(wanted)


@pytest.mark.parametrize("backbone", ["vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"])
def test_official_dinov3_loads(backbone: str) -> None:
    """With its masks of biases, and biases that its distilled models hold though they are zero."""
    wanted = timm.create_model(backbone, num_classes=0).state_dict()
    has_bias = any(name.endswith("q_bias") for name in wanted)
    official: State = {"mask_token": torch.zeros(1, 384), "rope_embed.periods": ONE}
    for name, value in wanted.items():
        if name.endswith("v_bias"):
            continue
        start = name.removesuffix("q_bias")
        if start != name:
            wanted[name], wanted[f"{start}v_bias"] = torch.randn(384), torch.randn(384)
            official[f"{start}qkv.bias"] = torch.cat([wanted[name], torch.ones(384), wanted[f"{start}v_bias"]])
        else:
            name = name.replace("reg_token", "storage_tokens")
            official[name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = value
    for number in range(12):
        official[f"blocks.{number}.attn.qkv.bias_mask"] = torch.ones(3 * 384)
        official.setdefault(
            f"blocks.{number}.attn.qkv.bias", torch.cat([torch.zeros(384), ONE.expand(384), torch.zeros(384)])
        )
    model = timm.create_model(backbone, num_classes=0)
    load_weights(model, official, name=backbone, origin="a.pth")
    assert weights_digest(model.state_dict()) == weights_digest(wanted)
    if not has_bias:
        official["blocks.0.attn.qkv.bias"] = torch.ones(3 * 384)
        with pytest.raises(InputError, match=r"1 unexpected \(blocks\.0\.attn\.qkv\.bias\)"):
            load_weights(model, official, name=backbone, origin="a.pth")
