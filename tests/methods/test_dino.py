"""DINO, beyond what test_methods.py asks of every method."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from methods_kit import build, configured, make_batch, reference
from torch.nn import functional as F

from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.errors import InputError
from robossl.methods.dino import DINOConfig
from robossl.methods.parts.multicrop import cls_crops, pooled_crops
from robossl.methods.parts.vit import plain_bicubic

with warnings.catch_warnings():  # importing lightly imports pytorch_lightning, which warns about its own imports
    warnings.simplefilter("ignore")
    from lightly.loss import DINOLoss


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"teacher_temperature": 0.0}, "temperatures must be positive, got"),
        ({"prototypes": 1}, "prototypes must be 2 or more, got 1"),
        ({"num_local_views": -1}, "num_local_views must be 0 or more, got -1"),
        ({"momentum": 1.5}, "momentum must lie in 0 to 1, got 1.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        DINOConfig(**words)


def test_views_are_two_global_and_the_local_crops_of_the_paper():
    first, second, *local = configured("dino", num_local_views=8).build(tiny()).views()
    assert (first.size, first.scale, first.blur_p, first.solarize_p) == (224, (0.4, 1.0), 1.0, 0.0)
    assert (second.size, second.scale, second.blur_p, second.solarize_p) == (224, (0.4, 1.0), 0.1, 0.2)
    assert len(local) == 8
    assert {(view.size, view.scale, view.blur_p) for view in local} == {(96, (0.05, 0.4), 0.5)}


def tiny(backbone="test_resnet", input_hw=(32, 32)):
    torch.manual_seed(0)
    return build_encoder(EncoderConfig(backbone, input_hw=input_hw))


def logits_of(method, batch):
    with torch.no_grad():
        encoder, head = method.teacher.copies
        t = head(cls_crops(encoder, batch.views[:2])).chunk(2)
        s = method.head(cls_crops(method.student, batch.views)).chunk(len(batch.views))
    return t, s


def test_loss_and_centre_are_the_formulas_and_lightly_s_from_any_centre():
    oracle, method = reference("dino"), build(configured("dino"))
    method.teacher_temperature = 0.0625  # exact in the float32 that lightly rounds it to
    method.center.mean.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    before = method.center.mean.clone()
    batch = make_batch(method)
    t, s = logits_of(method, batch)
    lightly = DINOLoss(output_dim=24).double()
    lightly.center.data = before.view(1, 1, -1).clone()
    ours = method(batch).value.item()
    rows = [each.tolist() for each in s], [each.tolist() for each in t]
    assert ours == pytest.approx(oracle.dino(*rows, before.tolist(), 0.1, 0.0625), abs=1e-12)
    assert ours == pytest.approx(lightly(list(t), list(s), teacher_temp=0.0625).item(), abs=1e-12)
    torch.testing.assert_close(method.center.mean, lightly.center.flatten(), rtol=0, atol=1e-14)
    expected = oracle.moved_center(before.tolist(), rows[1], 0.9)
    torch.testing.assert_close(method.center.mean, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)


def test_teacher_warms_up_and_the_last_layer_is_held_for_a_share_of_short_runs():
    method = build(configured("dino"))

    def at(step, steps):
        method.before_step(step, steps)
        return method.teacher_temperature, method.last_layer_is_frozen

    assert at(0, 1_000_000) == (0.04, True)
    assert at(18_750, 1_000_000) == (pytest.approx(0.055), False)
    assert at(37_500, 1_000_000) == (0.07, False)
    assert at(1249, 1_000_000)[1] and not at(1250, 1_000_000)[1]
    assert at(9, 100)[1] and not at(10, 100)[1]
    assert at(15, 100)[0] == pytest.approx(0.055)
    assert at(30, 100)[0] == at(99, 100)[0] == pytest.approx(0.07)
    assert at(0, 1) == (0.07, False)


def test_a_held_last_layer_gets_no_gradient_and_the_rest_does():
    method = build(configured("dino"))
    for step, held in ((0, True), (2, False)):
        method.before_step(step, 20)
        method.zero_grad()
        method(make_batch(method)).value.backward()
        method.after_backward()
        assert (method.head.prototypes.weight.grad is None) == held
        assert all(weight.grad is not None for weight in method.head.mlp.parameters())


def test_prototypes_have_unit_length_whatever_their_weights():
    head = build(configured("dino")).head
    x = torch.randn(4, next(head.parameters()).shape[1], dtype=torch.float64)
    before = head(x)
    with torch.no_grad():
        head.prototypes.weight *= torch.rand(24, 1) + 0.5
    torch.testing.assert_close(head(x), before)
    assert before.abs().max() <= 1


def test_exported_encoder_is_the_teacher_s_which_ends_where_the_student_stops():
    method = build(configured("dino"))
    with torch.no_grad():
        for weight in method.student.parameters():
            weight += 1
    old = next(method.encoder.parameters()).clone()
    assert method.encoder is method.teacher.copies[0]
    method.after_step(1.0)
    assert torch.equal(next(method.encoder.parameters()), old)
    method.after_step(0.0)
    torch.testing.assert_close(next(method.encoder.parameters()), old + 0.004)


def test_metrics_name_the_collapse():
    """Figure 7: the entropy of the teacher goes to 0, or to ln K; the divergence to 0 in both."""
    method = build(configured("dino"))
    method.before_step(0, 1000)
    method.center.mean[3] = -100.0
    assert method(make_batch(method)).metrics["teacher_entropy"].item() == pytest.approx(0.0, abs=1e-9)
    method.center.mean.zero_()
    method.teacher_temperature = 1e6
    assert method(make_batch(method)).metrics["teacher_entropy"].item() == pytest.approx(math.log(24), abs=1e-6)


def test_class_token_is_the_feature_of_a_vit_and_crops_keep_their_order():
    encoder = tiny("vit_tiny_patch16_224")
    views = make_batch(configured("dino").build(tiny())).views
    views = tuple(type(view)(**{**fields(view), "pixels": view.pixels[:2, :, :16, :16]}) for view in views)
    views = (*views[:2], *make_batch(configured("dino").build(tiny()), seed=1).views[:1])
    views = (*views[:2], type(views[2])(**{**fields(views[2]), "pixels": views[2].pixels[:2]}))
    with torch.no_grad():
        features = [encoder.eval()(view.pixels) for view in views]
        torch.testing.assert_close(cls_crops(encoder, views), torch.cat([each.cls for each in features]))
        torch.testing.assert_close(pooled_crops(encoder, views), torch.cat([each.pooled for each in features]))


def fields(view):
    return {name: getattr(view, name) for name in type(view).__slots__}


def test_settings_for_few_images_grow_to_the_paper_s():
    sizes = [10_000, 30_000, 70_000, 150_000, 300_000, 1_281_167, 10_000_000]
    found = [DINOConfig.for_num_images(size) for size in sizes]
    assert [each.prototypes for each in found] == [1024, 2048, 4096, 16384, 32768, 65536, 65536]
    temperatures = [each.teacher_temperature for each in found]
    assert temperatures == sorted(temperatures)
    assert (found[0].teacher_temperature, found[0].momentum) == (0.02, 0.99)
    assert all(each.teacher_temperature_start <= each.teacher_temperature for each in found)
    assert found[-2].teacher_temperature == pytest.approx(0.07)
    assert found[-2].momentum == pytest.approx(0.996)


def test_prototypes_have_lengths_of_their_own_that_train_follow_and_are_held():
    method = build(configured("dino", norm_last_layer=False))
    lengths, copied = method.head.lengths, method.teacher.copies[1].lengths
    assert lengths.shape == (24, 1) and bool((lengths == 1).all())  # a matrix: the authors' code lets it decay
    x = torch.randn(4, method.head.mlp[0].in_features, dtype=torch.float64)
    before = method.head(x)
    with torch.no_grad():
        lengths *= torch.arange(1.0, 25)[:, None]
    torch.testing.assert_close(method.head(x), before * torch.arange(1.0, 25, dtype=torch.float64))
    method.after_step(0.0)
    torch.testing.assert_close(copied, 0.996 + 0.004 * lengths.detach())
    for step, held in ((0, True), (2, False)):
        method.before_step(step, 20)
        method.zero_grad()
        method(make_batch(method)).value.backward()
        method.after_backward()
        assert (lengths.grad is None) == held


def test_loss_with_lengths_is_the_formula():
    method = build(configured("dino", norm_last_layer=False))
    with torch.no_grad():
        for head in (method.head, method.teacher.copies[1]):
            head.lengths.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))
    batch = make_batch(method)
    expected = reference("dino").loss(method, batch)
    assert method(batch).value.item() == pytest.approx(expected, rel=1e-10)


def vit(transformer, input_hw=(224, 224)):
    encoder = tiny("vit_tiny_patch16_224", input_hw)
    return configured("dino", transformer=transformer, head_batch_norm=False).build(encoder)


@pytest.mark.parametrize(("transformer", "std"), [("timm", 0.0073), ("official", 0.0175)])
def test_positions_of_local_crops_vary_as_in_the_code_named(transformer, std):
    """From 14 x 14 to 6 x 6 patches; the authors' bicubic leaves more than twice the spread of an antialiased one."""
    for encoder in (vit(transformer).student, vit(transformer).encoder):
        matrix = encoder.position_matrix(14, 6)
        positions = 0.02 * torch.randn(192, 14, 14, generator=torch.Generator().manual_seed(0))
        assert (matrix @ positions @ matrix.T).std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize(("source", "target"), [(14, 6), (4, 2), (7, 5), (4, 6)])
def test_official_positions_are_torch_s_bicubic_at_the_scale_of_the_authors(source, target):
    """Their scale has 0.1 patches added; the resize of a transformer's own positions goes through the same weights."""
    method = vit("official", (16 * source, 16 * source))
    positions = method.student.backbone.pos_embed[:, 1:].transpose(1, 2).reshape(1, 192, source, source)
    scale = (target + 0.1) / source
    expected = F.interpolate(positions, scale_factor=(scale, scale), mode="bicubic")
    matrix = plain_bicubic(source, target)
    torch.testing.assert_close(matrix @ positions @ matrix.T, expected, atol=1e-7, rtol=1e-5)
    embedded = []
    hook = method.student.backbone.norm_pre.register_forward_pre_hook(lambda _, inputs: embedded.append(inputs[0]))
    pixels = torch.zeros(1, 3, 16 * target, 16 * target)
    method.student.eval()(pixels)
    hook.remove()
    patches = method.student.backbone.patch_embed.proj(pixels)
    seen = embedded[0][:, 1:].transpose(1, 2).reshape(1, 192, target, target) - patches
    torch.testing.assert_close(seen, expected, atol=1e-6, rtol=1e-5)


def test_the_class_token_starts_as_in_the_code_named():
    stds = {name: vit(name).student.backbone.cls_token.std().item() for name in ("timm", "official")}
    assert stds["timm"] < 1e-5
    assert stds["official"] == pytest.approx(0.02, rel=0.2)
    assert torch.equal(vit("official").student.backbone.cls_token, vit("official").encoder.backbone.cls_token)


def test_official_transformers_are_refused_for_a_resnet():
    with pytest.raises(InputError, match=r"method\.transformer official needs a vision transformer, got test_resnet"):
        build(configured("dino", transformer="official"))
