"""Draw a contact sheet: frames transformed by each factor at each level, with PSNR and SSIM below each picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from robossl.common.atomic_io import atomic_write
from robossl.probes.factors import resolve_factor
from robossl.probes.views import RenderJob, Views

# In pixels: width of a picture, gap between pictures, height of a line of text, height of a line with a factor's name.
WIDTH, GAP, LINE, TITLE = 150, 6, 14, 24


def draw_contact_sheet(views: Views, jobs: Sequence[RenderJob], *, example: int = 0, blocks: int = 2) -> Image.Image:
    """Draw a row for each factor: a clean frame, then the same frame transformed at each level; return the picture.

    Args:
        views: The rendered views (transformed frames).
        jobs: Render jobs of the plan. Only jobs whose `draw` is "level" are shown, in the given order.
        example: Index of the judged frame that the first row shows. Each further row shows the next frame.
        blocks: Number of rows that are drawn side by side.
    """
    rows: dict[str, list[RenderJob]] = {}
    for job in jobs:
        if job.draw == "level" and job.factor != "floor":
            rows.setdefault(job.factor, []).append(job)
    height, width = views.frames.hw
    tall = round(WIDTH * height / width)
    columns = 1 + max(map(len, rows.values()), default=0)  # a column for the clean frame, then one for each level
    row_height, block_width = TITLE + tall + 2 * LINE + GAP, max(columns, 3) * (WIDTH + GAP) + 2 * GAP
    deep = -(-len(rows) // blocks)
    paper = Image.new("RGB", (blocks * block_width, deep * row_height + TITLE + GAP), "white")
    pen = ImageDraw.Draw(paper)
    pen.text(
        (GAP, GAP), "level: strength of this frame, then PSNR and SSIM to clean (mean over frames)", "black", _font(11)
    )
    for number, (name, own) in enumerate(rows.items()):
        left, top = (number // deep) * block_width + GAP, (number % deep) * row_height + TITLE + GAP
        factor = resolve_factor(name)
        pen.text((left, top), f"{factor.title} ({factor.unit})", fill="black", font=_font(13))
        shown = (example + number) % len(views.split.evaluation)
        _paste(paper, views, views.clean(own[0]), shown, (left, top + TITLE), ("clean", ""))
        for place, job in enumerate(own, start=1):
            corner = left + place * (WIDTH + GAP), top + TITLE
            _paste(paper, views, job, shown, corner, _make_captions(views, job, shown))
    return paper


def write_sheet(image: Image.Image, path: Path) -> None:
    """Write the contact sheet as a PNG file in one step, so that no reader sees half a file."""
    with atomic_write(path) as aside:
        image.save(aside, format="PNG", optimize=True)


def _make_captions(views: Views, job: RenderJob, shown: int) -> tuple[str, str]:
    """Return two captions: one with the level and the frame's strength, one with the level's mean PSNR and SSIM."""
    view = views.view(job)
    strength = float(views.values(job)[shown, 0])
    if view.psnr is None or view.ssim is None:
        return f"{job.level}: {strength:g}", "same pixels"
    return f"{job.level}: {strength:g}", f"{view.psnr:.1f} dB  {view.ssim:.2f}"


def _paste(
    paper: Image.Image, views: Views, job: RenderJob, shown: int, corner: tuple[int, int], texts: tuple[str, str]
) -> None:
    pixels = views.pixels(job)[shown]
    height, width = views.frames.hw
    scale = WIDTH / width
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    tile = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    left, top = corner
    paper.paste(tile, (left + (WIDTH - size[0]) // 2, top))
    pen = ImageDraw.Draw(paper)
    for number, text in enumerate(texts):
        pen.text((left, top + round(height * scale) + 1 + number * LINE), text, fill="black", font=_font(11))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
