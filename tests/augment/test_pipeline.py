"""The whole of augmentation: torchvision's pipeline on the same parameters, and bits that no batch changes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods_kit import reference as oracle
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from robossl.augment.pipeline import Augment, apply
from robossl.augment.random_draws import draw
from robossl.views import OPERATIONS, ClipSpec, RawBatch, RawFrames, ViewSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")
CLIP = ClipSpec(num_frames=3, stride_seconds=0.1)
BUSY = ViewSpec(size=24, jitter_p=0.9, grayscale_p=0.4, solarize_p=0.4)


def raw_batch(n=8, *, clip=BUSY.clip, step=5, hw=(40, 60), seed=0):
    """Frames of mixed true sizes, with noise in the padding, which must not matter."""
    generator = torch.Generator().manual_seed(seed)
    t = max(1, clip.num_frames)
    pixels = torch.randint(0, 256, (n, t, *hw, 3), dtype=torch.uint8, generator=generator).permute(0, 1, 4, 2, 3)
    source_hw = torch.tensor([[hw[0] - 3 * (i % 3), hw[1] - 7 * (i % 2)] for i in range(n)])
    frames = RawFrames(pixels, source_hw, torch.arange(n * t).view(n, t) / 10, torch.ones(n, t, dtype=torch.bool))
    return RawBatch(step, torch.arange(n), torch.arange(n) + 100, {clip: frames}, {"action": torch.ones(n, 2)})


def part(raw, rows):
    """The same samples in a smaller batch, as another rank would get them."""
    clips = {
        c: RawFrames(f.pixels[rows], f.source_hw[rows], f.time_seconds[rows], f.valid[rows])
        for c, f in raw.clips.items()
    }
    return RawBatch(raw.step, raw.position[rows], raw.index[rows], clips, {})


def augment(*specs, memory_format=torch.contiguous_format, seed=3):
    return Augment(specs, mean=MEAN, std=STD, seed=seed, device=CPU, memory_format=memory_format)


def torchvisions(frame, spec, p):
    """One frame through torchvision's functions, in float after the uint8 crop."""
    if spec.rotation_degrees:
        frame = reference.rotate(frame, p["angle"].item(), InterpolationMode.BILINEAR)
    box = p["crop"].int().tolist()
    x = reference.resized_crop(frame, *box, [spec.size] * 2, InterpolationMode(spec.interpolation), antialias=True)
    x = (x.flip(-1) if p["flip"] else x).float() / 255
    names = ("brightness", "contrast", "saturation", "hue")
    for operation in p["order"][p["order"] >= 0].int().tolist():
        x = getattr(reference, f"adjust_{names[operation]}")(x, p[names[operation]].item())
    if p["gray"]:
        x = reference.rgb_to_grayscale(x, 3)
    if p["sigma"] > 0:
        x = reference.gaussian_blur(x, [13, 13], [p["sigma"].item()] * 2)
    if p["solarize"]:
        x = reference.solarize(x, spec.solarize_threshold)
    return reference.normalize(x, list(MEAN), list(STD))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_view_is_torchvisions_pipeline(interpolation, memory_format):
    spec = replace(BUSY, interpolation=interpolation, solarize_p=0.0)  # solarize jumps where rounding differs
    raw = raw_batch(48)
    view = augment(spec, memory_format=memory_format)(raw).views[0]
    assert view.pixels.is_contiguous(memory_format=memory_format)
    frames = raw.clips[spec.clip]
    assert {int(v) for v in view.params["order"].unique()} == {-1, 0, 1, 2, 3}
    for i, (height, width) in enumerate(frames.source_hw.tolist()):
        own = {name: value[i] for name, value in view.params.items()}
        expected = torchvisions(frames.pixels[i, 0, :, :height, :width], spec, own)
        assert ((view.pixels[i] - expected).abs().amax((1, 2)) * torch.tensor(STD)).max() < 1e-5


@pytest.mark.parametrize("whose", ["byol", "simclr"])
def test_a_view_of_official_colours_is_the_plain_formula(whose):
    spec = replace(BUSY, size=40, solarize_p=0.0, blur_p=0.7, colour=whose)
    raw = raw_batch(12)
    view = augment(spec)(raw).views[0]
    plain = draw_for(spec, raw)
    off = {"order": -1.0, "gray": 0.0, "sigma": 0.0}
    nothing = plain | {name: torch.full_like(plain[name], value) for name, value in off.items()}
    before = apply(raw.clips[spec.clip], spec, nothing, (0.0,) * 3, (1.0,) * 3).pixels
    for i, image in enumerate(before):
        own = {name: value[i] for name, value in view.params.items()}
        factors = [own[name].item() for name in ("brightness", "contrast", "saturation", "hue")]
        params = {"order": own["order"].int().tolist(), "factors": factors}
        params |= {"gray": bool(own["gray"]), "sigma": own["sigma"].item()}
        rows = [[tuple(pixel) for pixel in row] for row in image.permute(1, 2, 0).double().tolist()]
        expected = torch.tensor(oracle("official_colours").view(rows, params, whose)).permute(2, 0, 1)
        expected = reference.normalize(expected.float(), list(MEAN), list(STD))
        assert ((view.pixels[i] - expected).abs().amax((1, 2)) * torch.tensor(STD)).max() < 1e-5


def test_solarize_is_torchvisions_away_from_its_threshold():
    spec = replace(BUSY, solarize_p=1.0)
    raw = raw_batch(16)
    view = augment(spec)(raw).views[0]
    before = apply(raw.clips[spec.clip], spec, draw_for(spec, raw, solarize=0.0), (0.0,) * 3, (1.0,) * 3).pixels
    expected = reference.normalize(reference.solarize(before, 0.5), list(MEAN), list(STD))
    clear = (before - 0.5).abs() > 1e-4
    assert ((view.pixels - expected).abs()[clear] < 1e-4).all()


def draw_for(spec, raw, **changes):
    frames = raw.clips[spec.clip]
    arguments = {"num_frames": frames.pixels.shape[1], "source_hw": frames.source_hw}
    params = draw(spec, seed=3, step=raw.step, position=raw.position, view=0, **arguments)
    return params | {name: torch.full_like(params[name], value) for name, value in changes.items()}


def test_rotation_comes_before_the_crop_and_has_no_box():
    spec = replace(BUSY, rotation_degrees=30.0, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0, solarize_p=0.0)
    raw = raw_batch(12)
    view = augment(spec)(raw).views[0]
    assert view.box is None and view.params["angle"].abs().max() > 5
    frames = raw.clips[spec.clip]
    for i, (height, width) in enumerate(frames.source_hw.tolist()):
        own = {name: value[i] for name, value in view.params.items()}
        expected = torchvisions(frames.pixels[i, 0, :, :height, :width], spec, own)
        assert ((view.pixels[i] - expected).abs().amax((1, 2)) * torch.tensor(STD)).max() < 1.01 / 255


def test_a_turn_is_exact_counterclockwise_and_has_no_box():
    spec, raw = replace(BUSY, turn_p=0.75, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0, solarize_p=0.0), raw_batch(24)
    view = augment(spec)(raw).views[0]
    upright = augment(replace(spec, turn_p=0.0))(raw).views[0]
    assert view.box is None and upright.box is not None
    turns = view.params["turns"].int().tolist()
    assert set(turns) == {0, 1, 2, 3}
    for turned, still, quarters in zip(view.pixels, upright.pixels, turns, strict=True):
        assert torch.equal(turned, torch.rot90(still, quarters, (1, 2)))


def test_repeated_calls_thread_counts_and_autocast_give_the_same_bits():
    spec, raw = replace(BUSY, size=33), raw_batch(64)
    threads = torch.get_num_threads()
    first = augment(spec)(raw).views[0].pixels
    again = augment(spec)(raw).views[0].pixels
    try:
        torch.set_num_threads(3 - min(threads, 2))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            other = augment(spec)(raw).views[0].pixels
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first, again) and torch.equal(first, other)


@settings(max_examples=12, deadline=None)
@given(
    st.permutations(range(8)),
    st.integers(1, 7),
    st.sampled_from([9, 32, 49]),
    st.sampled_from([(), OPERATIONS]),
    st.sampled_from(["torchvision", "byol", "simclr"]),
)
def test_a_sample_has_the_same_bits_in_any_batch(samples, cut, size, per_frame, colour):
    spec = replace(BUSY, size=size, clip=CLIP, per_frame=per_frame, colour=colour)
    raw, make = raw_batch(8, clip=CLIP), augment(BUSY, spec)
    raw = replace(raw, clips=raw.clips | raw_batch(8).clips)
    whole = make(raw)
    for rows in (samples[:cut], samples[cut:]):
        for view, expected in zip(make(part(raw, rows)).views, whole.views, strict=True):
            assert torch.equal(view.pixels, expected.pixels[rows])
            assert torch.equal(view.box, expected.box[rows])
            assert all(torch.equal(value, expected.params[name][rows]) for name, value in view.params.items())


def test_views_differ_and_may_have_their_own_sizes():
    large, small = BUSY, replace(BUSY, size=12, scale=(0.05, 0.2))
    batch = augment(large, large, small)(raw_batch())
    assert [view.pixels.shape for view in batch.views] == [(8, 3, 24, 24), (8, 3, 24, 24), (8, 3, 12, 12)]
    assert not torch.equal(batch.views[0].pixels, batch.views[1].pixels)
    assert batch.index.tolist() == list(range(100, 108)) and batch.extra["action"].shape == (8, 2)
    assert batch.views[2].time_seconds.shape == (8,)


@pytest.mark.parametrize("per_frame", [(), OPERATIONS])
def test_a_clip_is_its_frames(per_frame):
    spec = replace(BUSY, clip=CLIP, per_frame=per_frame)
    raw = raw_batch(clip=CLIP)
    view = augment(spec)(raw).views[0]
    assert view.pixels.shape == (8, 3, 3, 24, 24) and view.box.shape == (8, 3, 4)
    assert view.time_seconds.shape == (8, 3) and view.params["order"].shape == (8, 3, 4)
    assert torch.equal(view.box, view.box[:, :1].expand(-1, 3, -1)) == (not per_frame)
    params = draw_for(spec, raw)
    frames = raw.clips[CLIP]
    for t in range(3):
        alone = RawFrames(
            frames.pixels[:, t : t + 1], frames.source_hw, frames.time_seconds[:, t : t + 1], frames.valid[:, :1]
        )
        own = {name: value[:, t : t + 1] for name, value in params.items()}
        assert torch.equal(apply(alone, replace(spec, clip=ClipSpec()), own, MEAN, STD).pixels, view.pixels[:, t])


@settings(max_examples=25, deadline=None)
@given(st.integers(30, 90), st.integers(30, 90), st.integers(0, 10**6))
def test_pixels_come_from_where_the_box_says(height, width, step):
    """Frames that hold their own coordinates: what a view shows is what its box says, flips and clips included."""
    slope = 255 // max(height, width)
    x_plane = (slope * torch.arange(width)).expand(height, width)
    y_plane = (slope * torch.arange(height))[:, None].expand(height, width)
    frame = torch.stack([x_plane, y_plane, y_plane], -1).to(torch.uint8)
    pixels = frame.expand(4, 3, height, width, 3).permute(0, 1, 4, 2, 3)
    frames = RawFrames(
        pixels, torch.tensor([[height, width]] * 4), torch.zeros(4, 3), torch.ones(4, 3, dtype=torch.bool)
    )
    raw = RawBatch(step, torch.arange(4), torch.arange(4), {CLIP: frames})
    off = {"jitter_p": 0.0, "grayscale_p": 0.0, "blur_p": 0.0}
    spec = ViewSpec(size=16, scale=(0.1, 1.0), clip=CLIP, per_frame=OPERATIONS, **off)
    view = Augment((spec,), mean=(0.0,) * 3, std=(1 / 255,) * 3, seed=0, device=CPU)(raw).views[0]
    x0, y0, x1, y1 = view.box.unbind(-1)
    assert torch.equal(x0 > x1, view.params["flip"] > 0)
    centre = (torch.arange(16) + 0.5) / 16
    x = (x0[..., None] + (x1 - x0)[..., None] * centre) * width - 0.5
    y = (y0[..., None] + (y1 - y0)[..., None] * centre) * height - 0.5
    inner = slice(2, 14)  # towards the crop's edge its filter is one-sided
    off_x = (view.pixels[:, :, 0] - slope * x[..., None, :]).abs()[..., inner]
    off_y = (view.pixels[:, :, 1] - slope * y[..., :, None]).abs()[..., inner, :]
    assert max(off_x.max(), off_y.max()) <= 1.01 + 0.1 * slope
