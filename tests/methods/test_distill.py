"""Distillation: the known answers of its losses and standardisations, and a teacher that nothing changes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from methods_kit import TINY, build, configured, make_batch, reference
from robossl_client.card import EncoderCard
from runs_kit import config_for, weights
from serving_kit import build_tiny

from robossl.augment.pipeline import Augment
from robossl.data.loader import BatchLoader
from robossl.data.sampler import Sampler
from robossl.data.store import open_store
from robossl.encoders.cards import open_encoder, teacher_record, torch_card
from robossl.encoders.encoder import build_encoder, read_encoder, save_encoder
from robossl.encoders.inference import load_encoder
from robossl.errors import InputError
from robossl.methods.parts.cells import same_cells
from robossl.methods.parts.frozen import FrozenTeacher
from robossl.methods.parts.losses import relation_loss
from robossl.methods.parts.standardise import Standardiser, equal_variances
from robossl.training.pretrain import pretrain

ORACLE = reference("distill")


@pytest.fixture
def correlated():
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(7, 7, generator=draw, dtype=torch.float64) * torch.logspace(-1, 1, 7, dtype=torch.float64)
    return torch.randn(500, 7, generator=draw, dtype=torch.float64) @ mix + 3


@pytest.mark.parametrize("loss", ["feature", "relation", "both"])
@pytest.mark.parametrize("distance", ["cosine", "smooth_l1", "mse"])
def test_a_student_that_is_its_teacher_has_no_loss(tmp_path, loss, distance):
    torch.manual_seed(0)
    encoder = build_encoder(TINY)
    save_encoder(encoder, tmp_path / "teacher", extra={})
    words = {"teacher": [str(tmp_path / "teacher")], "loss": loss, "distance": distance, "teacher_size": 32}
    method = configured("distill", **words).build(encoder).double().eval()
    for projector in (module for head in method.heads for module in head.projectors.values()):
        torch.nn.init.eye_(projector[0].weight)
        torch.nn.init.zeros_(projector[0].bias)
    assert method(make_batch(method)).value.item() == pytest.approx(0, abs=1e-12)
    torch.nn.init.normal_(method.encoder.backbone.conv1[0].weight)
    assert method(make_batch(method)).value.item() > 1e-3


def test_a_linear_student_with_squared_errors_ends_at_least_squares():
    method = build(configured("distill", loss="feature", distance="mse", dense_weight=0.0, standardise="none"))
    batch = make_batch(method, b=128)
    with torch.no_grad():
        x = method.encoder(batch.views[0].pixels).pooled
    t = method.teachers[0](batch.views[0].pixels)["pooled"]
    inputs = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    best = torch.linalg.lstsq(inputs, t).solution
    projector = method.heads[0].projectors["pooled"][0]
    projector.weight.data, projector.bias.data = best[:-1].T.clone(), best[-1].clone()
    value = method(batch).value
    value.backward()
    assert value.item() == pytest.approx((inputs @ best - t).square().mean().item(), rel=1e-9)
    assert projector.weight.grad.abs().max() < 1e-10


@pytest.mark.parametrize("kind", ["channel", "phi_s"])
def test_targets_have_mean_0_and_variance_1_and_come_back(correlated, kind):
    standard = Standardiser(7, kind=kind, steps=2).double()
    for half in correlated.chunk(2):
        standard.update(half)
    standard.update(correlated * 9)  # after the last step nothing is taken
    rows = standard(correlated)
    torch.testing.assert_close(rows.mean(0), torch.zeros(7, dtype=rows.dtype), atol=1e-9, rtol=0)
    torch.testing.assert_close(rows.var(0, unbiased=False), torch.ones(7, dtype=rows.dtype))
    torch.testing.assert_close(standard.invert(rows), correlated)
    assert torch.nn.functional.mse_loss(torch.zeros_like(rows), rows).item() == pytest.approx(1)


def test_phi_s_counts_an_error_the_same_in_every_direction(correlated):
    rotation = equal_variances(correlated.T.cov(correction=0))
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(7, dtype=rotation.dtype))
    standard = Standardiser(7, kind="phi_s", steps=1).double()
    standard.update(correlated)
    errors = torch.eye(7, dtype=torch.float64)
    moved = (standard(correlated[:1] + errors) - standard(correlated[:1])).norm(dim=1)
    torch.testing.assert_close(moved, moved[:1].expand(7))


def test_a_channel_that_never_varies_stays_finite():
    standard = Standardiser(3, kind="channel", steps=1)
    standard.update(torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 2.5]]))
    assert standard(torch.tensor([[0.5, 2.0, 2.0]])).abs().max() < 100
    nothing = Standardiser(3, kind="phi_s", steps=1)
    nothing.update(torch.ones(4, 3))
    assert nothing(torch.ones(1, 3)).tolist() == [[0, 0, 0]]


def test_relations_of_equal_rows_are_equal():
    rows = torch.randn(4, 6, dtype=torch.float64)
    assert relation_loss(rows, 3 * rows, torch.randn(9, 6), temperature=0.07).item() == pytest.approx(0, abs=1e-12)
    alike = torch.ones(9, 6)
    assert relation_loss(rows, rows.flip(0), alike, temperature=0.07) > 0.1


def test_the_finer_map_is_averaged_to_the_coarser_one():
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    mine, theirs = same_cells(fine, torch.zeros(1, 5, 2, 2))
    assert mine.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert theirs.shape == (4, 5)
    mine, theirs = same_cells(torch.zeros(1, 5, 2, 2), fine)
    assert theirs.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_the_queue_takes_the_targets_once_a_step():
    method = build(configured("distill", queue_size=16))
    batch = make_batch(method)
    targets = method.teachers[0](batch.views[0].pixels)["pooled"]
    method(batch)
    expected = torch.nn.functional.normalize(targets, dim=1)  # before the first step there are no moments
    torch.testing.assert_close(method.heads[0].queue.rows[:8], expected)


@pytest.mark.parametrize("kind", ["encoder folder", "exported model"])
def test_a_teacher_sees_what_it_was_made_for(tmp_path, kind):
    """Pixels that are normalised for the student give what the teacher's own encoder gives for the frames."""
    address = ORACLE.TEACHER if kind == "encoder folder" else str(build_tiny(tmp_path, version=1).parent)
    frames = np.random.default_rng(0).integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
    student = build_encoder(TINY)
    pixels = student.normalise(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255)
    teacher = FrozenTeacher(address, outputs=("pooled", "dense"), size=None, student=student.config)
    found, expected = teacher(pixels), load_encoder(address)(frames)
    assert teacher.size == 32
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), expected[name], atol=1e-4)


def test_an_exported_model_teaches(tmp_path):
    models = build_tiny(tmp_path, version=1).parent
    method = build(configured("distill", teacher=[str(models), ORACLE.TEACHER], teacher_size=32))
    assert method.get_extra_state()[0].tolist() == list(bytes.fromhex(method.teachers[0].digest))
    method(make_batch(method)).value.backward()
    assert method.heads[0].projectors["dense"][0].weight.grad.any()


def test_training_leaves_the_teacher_as_it_was_and_saves_only_its_digest():
    method = build(configured("distill"), dtype=torch.float32).train()
    teacher = method.teachers[0]
    frames = torch.randn(2, 3, 32, 32)
    before = teacher(frames)["pooled"]
    assert not before.requires_grad
    for seed in range(2):
        method(make_batch(method, seed=seed)).value.backward()
    torch.testing.assert_close(teacher(frames)["pooled"], before, rtol=0, atol=0)
    sizes = {name: value.numel() for name, value in method.state_dict().items() if "encoder" not in name}
    assert sizes.pop("_extra_state") == 32
    assert all(name.startswith("heads.0.") for name in sizes)


def test_the_student_begins_the_same_whatever_its_teacher_is():
    one, other = (build(configured("distill", teacher=[place])) for place in (ORACLE.TEACHER, ORACLE.OTHER))
    for name, value in one.encoder.state_dict().items():
        assert torch.equal(value, other.encoder.state_dict()[name]), name


def test_the_teacher_s_view_is_the_student_s_picture_at_another_size(clip_store_path):
    method = build(configured("distill", teacher_size=64, view={"size": 32, "blur_p": 1.0}))
    first, second = method.views()
    assert (first.size, second.size, method.encoder_sizes()) == (32, 64, {32})
    store = open_store(clip_store_path)
    sampler = Sampler(store, np.arange(store.num_frames), seed=0, batch_size=16)
    loader = BatchLoader(store, sampler, (first.clip, second.clip), slice(None), torch.device("cpu"), num_workers=0)
    augment = Augment((first, second), mean=TINY.mean, std=TINY.std, seed=0, device=torch.device("cpu"))
    small, large = (view.pixels for view in augment(loader.batch(0)).views)
    halved = torch.nn.functional.interpolate(large, (32, 32), mode="bilinear", antialias=True)
    assert (small - halved).abs().mean() < 0.05 * small.std()
    assert (small - halved.roll(1, 0)).abs().mean() > 0.5 * small.std()


def test_a_run_goes_on_with_the_same_teacher_only_and_exports_the_student(clip_store_path, tmp_path):
    teacher = tmp_path / "teacher"
    shutil.copytree(ORACLE.TEACHER, teacher)
    config = config_for("distill", clip_store_path, steps=2, checkpoint_every=1)
    config = replace(config, method=replace(config.method, teacher=(str(teacher),)))
    run = pretrain(config, out=tmp_path / "run").path
    assert "_extra_state" in weights(run, 2)
    names = set(read_encoder(run / "encoder").backbone.state_dict())
    assert names == set(build_encoder(config.encoder).backbone.state_dict())

    shutil.rmtree(run / "checkpoints" / "step_00000002")
    shutil.rmtree(teacher)
    ORACLE.save_teacher(teacher, seed=5)
    with pytest.raises(InputError, match=r"teacher .* has the digest \w{12}, the run .* with \w{12}; put the old"):
        pretrain(config, out=run, resume=True)


def test_the_card_names_the_teacher_and_its_licence(clip_store_path, tmp_path):
    teacher = tmp_path / "folders" / "large"
    data = [{"store": "s1", "licences": ["CC-BY-NC-4.0"]}]
    save_encoder(read_encoder(Path(ORACLE.TEACHER)), teacher, extra={"method": "simclr", "data": data})
    config = config_for("distill", clip_store_path, steps=1)
    config = replace(config, method=replace(config.method, teacher=(str(teacher), ORACLE.OTHER), teacher_size=32))
    student = pretrain(config, out=tmp_path / "student").path
    known, unknown = (load_encoder(place).card.digest[:12] for place in (teacher, ORACLE.OTHER))
    said = {
        f"distilled from the teacher large ({known}): data under CC-BY-NC-4.0; data under CC-BY-NC-4.0: not for "
        "commercial use",
        f"distilled from the teacher other ({unknown}): its licence is not recorded",
        "data under CC-BY-NC-4.0: not for commercial use",
    }
    later = config_for("simsiam", clip_store_path, steps=1)
    later = replace(later, encoder=replace(config.encoder, init=str(student)))
    for run in (student, pretrain(later, out=tmp_path / "later").path):
        card = open_encoder(run / "encoder")[1]
        assert said <= set(card.warnings)
        assert "CC-BY-NC-4.0" in card.licences
        assert EncoderCard.from_json(card.to_json()) == card


def test_a_public_teacher_keeps_its_address_without_folders():
    card = torch_card(build_encoder(TINY), name="tiny", extra={})
    names = {"pip:tiny": "pip:tiny", "timm:tiny@/home/me/w.pt": "timm:tiny@w.pt", "runs/a@b": "tiny"}
    assert {address: teacher_record(address, card)["name"] for address in names} == names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"teacher": []}, "teacher is empty; name one or more encoders"),
        ({"teacher": ["no/such"]}, "no/such is no encoder; pass a run folder"),
        ({"output": "cls"}, "output of .* 'cls'.*"),
        ({"teacher": [ORACLE.OTHER], "teacher_size": 31}, "takes no pictures of 31 px .* set method.teacher_size"),
        ({"loss": "feature", "pooled_weight": 0, "dense_weight": 0}, "are both 0; raise one, or set loss to relation"),
        ({"temperature": 0}, "temperature must be a positive number"),
    ],
)
def test_what_cannot_be_distilled_is_said(words, said):
    with pytest.raises(InputError, match=said):
        build(configured("distill", **words))
