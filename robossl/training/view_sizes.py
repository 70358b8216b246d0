"""Check the sizes of a method's views, and shrink the views of a run's first steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from robossl.data.store import Store
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError, reason
from robossl.methods.base import Method
from robossl.training.run_config import RunConfig
from robossl.views import ViewSpec

SIZE_STEP = 16  # Sizes of the smaller views are multiples of this, the patch size of most ViTs.


def check_views(method: Method, stores: Sequence[Store], specs: tuple[ViewSpec, ...]) -> None:
    """Refuse a view (augmented frame or clip) of the method that cannot be used.

    It is a clip for a method that takes single images, a view larger than every frame, or of a size that the backbone
    cannot take.
    """
    clips = [spec.clip.num_frames for spec in specs if spec.clip.num_frames]
    if clips and not method.takes_clips:
        raise InputError(
            f"the method takes single frames, got clips of {clips[0]}; leave out num_frames of the view's clip, or "
            "choose a method for video such as cpc"
        )
    largest = max(int(store.frame_hw.min(axis=1).max()) for store in stores)
    size = max(spec.size for spec in specs)
    if size > largest:
        raise InputError(
            f"views of {size} px from frames whose short side is at most {largest}: every view would be enlarged; "
            f"set the view sizes of the method, or its teacher_size, to {largest} or less, or ingest with a larger "
            "--short-side"
        )
    for size in sorted(method.encoder_sizes()):
        check_size(method.encoder, size)


def shrink_views(specs: tuple[ViewSpec, ...], config: RunConfig, method: Method) -> tuple[ViewSpec, ...]:
    """Return smaller copies of the views for the first steps; return () if all steps use the full size.

    Sizes are rounded to a multiple of SIZE_STEP pixels.

    Raises:
        InputError: the method cuts its views into pieces or shows them to a teacher of another size, or the backbone
            does not take a smaller size.
    """
    if config.train.small_views_share == 0:
        return ()
    if method.encoder_sizes() != {spec.size for spec in specs}:
        raise InputError(
            "train.small_views_share is more than 0, but the method needs views of a fixed size, which it cuts into "
            "pieces or shows to a teacher; set it to 0"
        )
    scale = config.train.small_views_scale
    small = tuple(
        replace(spec, size=max(SIZE_STEP, round(spec.size * scale / SIZE_STEP) * SIZE_STEP)) for spec in specs
    )
    for size in sorted({spec.size for spec in small}):
        check_size(method.encoder, size)
    return small


def check_size(encoder: Encoder, size: int) -> None:
    """Refuse a view size that the backbone cannot take, such as a size that is no multiple of its patch size."""
    try:
        with torch.no_grad():
            encoder.eval()(torch.zeros(1, 3, size, size))
    except Exception as error:  # timm's models raise errors of any type
        height, width = encoder.backbone.default_cfg["input_size"][-2:]
        raise InputError(
            f"{encoder.config.backbone} takes no views of {size} px: {reason(error).rstrip('.')}; choose other sizes "
            f"for the method's views (the model is made for {height}x{width}), or another backbone"
        ) from error
    encoder.train()
