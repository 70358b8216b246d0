"""`robossl attention`: draw what the class token of a ViT attends to in the last block (DINO, arXiv:2104.14294)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from robossl.common.atomic_io import atomic_write
from robossl.data.store import Store, open_store
from robossl.encoders.embed import Frame, read_frames
from robossl.encoders.encoder import Encoder, read_encoder
from robossl.encoders.find import find_encoder
from robossl.encoders.positions import token_grid
from robossl.errors import InputError, ResourceError

MASS = 0.6  # share of the attention that the marked patches hold; from the appendix of the DINO paper
# Largest number of patches of a zoomed frame, so that memory suffices. The attention of a head takes 4 * patches^2
# bytes, and several such tensors exist at a time.
MAX_PATCHES = 80 * 80
MAX_ASPECT = 4.0  # largest aspect ratio of a panel in the picture; a longer frame leaves part of its panel empty


def attention(
    source: str,
    images: tuple[Path, ...],
    *,
    out: Path,
    store: Path | None = None,
    split: str | None = None,
    rows: tuple[int, ...] = (),
    num_frames: int = 4,
    zoom: int = 1,
    mass: float = MASS,
) -> None:
    """Draw what the class token of a ViT attends to in the last block, as a PNG for each frame.

    The upper row of a PNG shows the frame, the mean attention of all heads, and the attention of each head. The lower
    row marks the patches with most of the attention.

    Args:
        source: A run folder or an encoder folder.
        images: Image files and folders of images; leave them out with --store.
        out: Folder that the PNGs are written to.
        store: Store to take frames from.
        split: Take frames from this split of the store only.
        rows: Take these rows of the store.
        num_frames: Take this many frames of the store, evenly spaced; ignored with --rows.
        zoom: Resize frames to this many times the encoder's input size, for more and finer patches.
        mass: Share of the attention that the marked patches hold together.
    """
    if bool(images) == bool(store):
        raise InputError("pass either images or --store, to say which frames are drawn")
    if not 0 < mass <= 1 or zoom < 1 or num_frames < 1:
        raise InputError(f"mass must lie in 0 to 1, zoom and num_frames from 1 on; got {mass}, {zoom}, {num_frames}")
    folder = find_encoder(Path(source))
    if folder is None:
        raise InputError(f"{source} is no encoder; pass a run folder or an encoder folder (an export has no attention)")
    encoder = read_encoder(folder)
    check_attention(encoder)
    check_zoom(encoder, zoom)
    frames = _store_frames(open_store(store), split, rows, num_frames) if store else read_frames(images)
    for i, (name, pixels) in enumerate(frames):
        maps = class_attention(encoder, encoder_pixels(encoder, pixels, zoom=zoom))[0]
        path = out / f"{i:03d}_{re.sub(r'[^A-Za-z0-9.@-]+', '_', Path(name).stem if images else name)}.png"
        draw_sheet(path, name, pixels, maps.numpy(), mass=mass)
        print(f"wrote {path}")


def check_attention(encoder: Encoder) -> None:
    """Check that an encoder has a class token whose attention can be drawn.

    Raises:
        InputError: the backbone is not a ViT with a class token and timm's plain self-attention.
    """
    from timm.layers.attention import Attention

    blocks = getattr(encoder.backbone, "blocks", None)
    name = encoder.config.backbone
    if not encoder.has_cls or not blocks or not isinstance(getattr(blocks[-1], "attn", None), Attention):
        raise InputError(
            f"{name} has no class token with plain self-attention; attention is drawn of ViTs such as "
            "vit_tiny_patch16_224 and vit_small_patch16_224"
        )


def check_zoom(encoder: Encoder, zoom: int) -> None:
    """Check that the attention of a zoomed frame fits into memory.

    Raises:
        InputError: the zoom is too large; the message gives the largest allowed zoom.
    """
    patches = math.prod(encoder.backbone.patch_embed.grid_size)
    if zoom > (largest := max(1, math.isqrt(MAX_PATCHES // patches))):
        raise InputError(f"zoom {zoom} makes {zoom**2 * patches} patches of a frame; zoom up to {largest}")


def encoder_pixels(encoder: Encoder, frame: UInt8[ndarray, "h w 3"], *, zoom: int = 1) -> Float[Tensor, "1 3 H W"]:
    """Resize a frame to `zoom` times the input size of the encoder, and normalise it."""
    height, width = encoder.config.input_hw
    pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1).unsqueeze(0).float() / 255
    size = (zoom * height, zoom * width)
    return encoder.normalise(torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True))


@torch.no_grad()
def last_attention(encoder: Encoder, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b heads n n"]:
    """Return the attention of every token to every token in the last block, for each head; each row sums to one.

    timm's fused attention does not return its attention weights, so this function computes them again from the input of
    the layer.
    """
    attend = encoder.backbone.blocks[-1].attn
    seen: list[Tensor] = []
    hook = attend.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        encoder(pixels)
    finally:
        hook.remove()
    (x,) = seen
    qkv: Tensor = attend.qkv(x)
    q, k, _ = qkv.reshape(*x.shape[:2], 3, attend.num_heads, -1).permute(2, 0, 3, 1, 4)
    logits: Tensor = attend.q_norm(q) * attend.scale @ attend.k_norm(k).mT
    return logits.float().softmax(-1)


def class_attention(encoder: Encoder, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b heads H W"]:
    """Return how much the class token attends to each patch. Each head has one map of patches, which sums to one."""
    to_patches = last_attention(encoder, pixels)[:, :, 0, encoder.num_prefix_tokens :]
    grid = token_grid(to_patches.shape[-1], (pixels.shape[-2], pixels.shape[-1]))
    assert grid is not None, "build_encoder checks that the tokens form a grid"
    return (to_patches / to_patches.sum(-1, keepdim=True)).reshape(*to_patches.shape[:2], *grid)


def heaviest_patches(weights: Float[ndarray, "h w"], mass: float) -> Bool[ndarray, "h w"]:
    """Return a mask of the smallest set of patches that together have at least the share `mass` of the attention."""
    order = weights.ravel().argsort()[::-1]
    before = weights.ravel()[order].cumsum() - weights.ravel()[order]
    chosen = np.zeros(weights.size, dtype=bool)
    chosen[order[before < mass * weights.sum() - 1e-9]] = True
    return chosen.reshape(weights.shape)


def draw_sheet(
    path: Path, name: str, frame: UInt8[ndarray, "h w 3"], maps: Float[ndarray, "heads H W"], *, mass: float = MASS
) -> None:
    """Write a PNG. Its upper row has the frame, the mean attention of all heads, and the attention of each head.

    The lower row shows the frame once for each of these maps. It darkens all patches except the smallest set that holds
    the share `mass` of the attention.

    Raises:
        ResourceError: the picture cannot be written.
    """
    from matplotlib.figure import Figure

    height, width = frame.shape[:2]
    shown = [("mean of heads", maps.mean(0)), *((f"head {i}", each) for i, each in enumerate(maps))]
    columns = len(shown) + 1
    cell, aspect = 1.7, min(max(height / width, 1 / MAX_ASPECT), MAX_ASPECT)
    figure = Figure(figsize=(columns * cell, 2 * cell * aspect + 0.7), layout="constrained")
    figure.suptitle(f"{name}: attention of the class token, last block", fontsize=9, parse_math=False)
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].imshow(frame)
    axes[0, 0].set_title("frame", fontsize=8)
    axes[1, 0].text(0.5, 0.5, f"patches with\n{mass:.0%} of the\nattention", ha="center", va="center", fontsize=8)
    extent = (0, width, height, 0)
    for column, (title, weights) in enumerate(shown, start=1):
        axes[0, column].imshow(weights, extent=extent, cmap="inferno", interpolation="nearest")
        axes[0, column].set_title(title, fontsize=8)
        axes[1, column].imshow(frame, extent=extent)
        veil = np.zeros((*weights.shape, 4))
        veil[..., 3] = np.where(heaviest_patches(weights, mass), 0.0, 0.75)
        axes[1, column].imshow(veil, extent=extent, interpolation="nearest")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as aside:
            figure.savefig(aside, format="png", dpi=120)
    except OSError as error:
        raise ResourceError(f"cannot write {path} ({error.strerror}); make room, or choose another place") from error


def _store_frames(store: Store, split: str | None, rows: tuple[int, ...], num_frames: int) -> Iterator[Frame]:
    allowed = store.rows(split)
    if strange := [row for row in rows if row not in allowed]:
        where = "the store" if split is None else f"split {split!r}"
        raise InputError(f"rows {strange} are not in {where}, which has {len(allowed)} rows from {allowed[0]} on")
    spaced = allowed[np.linspace(0, len(allowed) - 1, min(num_frames, len(allowed))).round().astype(int)]
    for row in rows or spaced.tolist():
        episode = store.episode_id[store.episode_of(np.array([row]))[0]]
        yield f"{episode}@{store.time_seconds[row]:.3f}", store.decode([row])[0].permute(1, 2, 0).numpy()
