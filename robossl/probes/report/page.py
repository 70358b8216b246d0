"""The page: one file that needs no network, and the two pictures beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from matplotlib.figure import Figure

from robossl.durable import raise_disk_full, write_text
from robossl.probes.report.drawing import to_svg, write_png
from robossl.probes.report.heatmap import draw_heatmap
from robossl.probes.report.lookup import LEVELS, Lookup
from robossl.probes.report.panels import flags, render_heads, render_health, render_table
from robossl.probes.report.pictures import TakenFor, render_neighbours, render_sheet
from robossl.probes.report.plane import Plane, draw_plane, make_plane
from robossl.probes.report.sides import draw_sides
from robossl.probes.report.spectrum import draw_spectrum
from robossl.probes.report.strip import banner, render_strip
from robossl.probes.report.words import CHOSEN, title
from robossl.probes.result import Figure as Reading
from robossl.probes.result import Report

NO_LABELS_READ = (
    "This task reads no labels: nothing here says whether the features carry what a policy needs. A profile that names "
    "labels, on frames that have them, judges that too."
)
NO_LABELS = (
    "No task was retained or lost here: the frames have no labels that the profile reads. Name a store's with "
    "<code>--columns class NAME</code> or <code>--columns pose NAME</code> (<code>robossl probe run --help</code>), "
    "and every factor is also judged by what it costs the task."
)


def write_page(
    report: Report, folder: Path, *, sheet: Path | bytes | None = None, neighbours: Sequence[TakenFor] = ()
) -> tuple[Path, ...]:
    """Write `report.html`, `heatmap.png` and `plane.png` into a folder; returns their paths.

    Args:
        report: What was found.
        folder: Where they go; it is made.
        sheet: The contact sheet, a PNG.
        neighbours: The worst retrievals.

    Raises:
        ResourceError: the disk is full.
    """
    look = Lookup(report)
    heat, plane = _invariance(look), make_plane(look)
    flat = draw_plane(plane)
    page, *pictures = (folder / name for name in ("report.html", "heatmap.png", "plane.png"))
    body = [_header(report), banner(report), _collapse(look), _heads(report)]
    body += [render_strip(look), _heatmaps(look, heat)]
    body += [_plane(plane, flat), _sides(look), render_sheet(sheet), render_neighbours(neighbours)]
    body += [render_health(report, to_svg(draw_spectrum(report), "Spectrum of the features"))]
    body += [render_table(look), _again(report)]
    write_text(page, whole(f"{report.encoder.name}: RoboSSL probe", "".join(body)))
    with raise_disk_full(folder):
        for figure, path in zip((heat, flat), pictures, strict=True):
            write_png(figure, path)
    return (page, *pictures)


def whole(name: str, body: str) -> str:
    """A page around its body."""
    style = files("robossl.report").joinpath("style.css").read_text(encoding="utf-8")
    style += files("robossl.probes.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(name)}</title><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def _header(report: Report) -> str:
    encoder, data = report.encoder, report.data
    pairs = [
        ("Task", escape(report.task.profile) if report.task else "none named"),
        (
            "Frames",
            f"{data.n_evaluation:,} <small>in {data.num_clusters:,} clusters: {escape(data.cluster_key)}</small>",
        ),
        ("Data", f"{escape(data.name)} <small>{data.resolution[1]}x{data.resolution[0]} px</small>"),
        ("Features", f"{encoder.dim} <small>{escape(encoder.layer)}</small>"),
        ("Made", escape(report.created[:16].replace("T", " "))),
    ]
    if backbone := report.random_backbone:
        pairs.append(("Random weights", f"{escape(backbone.name)} <small>{CHOSEN[backbone.known_from]}</small>"))
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return (
        f'<header><p class="kicker">RoboSSL probe</p><h1>{escape(encoder.name)}</h1>'
        f'<p class="summary">What changes this encoder ignores, what it still lets a policy read, and whether that '
        f'fits the task.</p><dl class="facts">{tiles}</dl></header>'
    )


def _heads(report: Report) -> str:
    names = ["this encoder", *(readings.name for readings in report.references.values())]
    return render_heads(names, [report.readings, *report.references.values()])


def _collapse(look: Lookup) -> str:
    return flags(look.report.readings.health) if look.is_collapsed else ""


def _invariance(look: Lookup) -> Figure:
    return draw_heatmap(
        look,
        look.cell,
        heading=f"Invariance (NIS_w) of {_brief(look.report.encoder.name)}",
        lead="1: the change moves nothing; 0: it moves the features as much as another frame",
        name="nis_w",
        outline=True,
    )


def _heatmaps(look: Lookup, heat: Figure) -> str:
    cards = _card(
        heat, f"Heatmap of invariance by factor and strength; {_numbers(look, look.cell)}", _reasons(look, look.cell)
    )
    for label in look.labels:
        read = _retained(look, label)
        figure = draw_heatmap(
            look,
            read,
            heading=f"What is left of the task: {label}",
            lead="1: reads as on clean frames, 0: guesses. INV: asked for the old label, else the moved one",
            name=f"retention-{label}",
            outline=False,
        )
        cards += _card(figure, f"Heatmap of what is left of {label}; {_numbers(look, read)}", _reasons(look, read))
    if not look.labels:
        task = look.report.task
        words = NO_LABELS_READ if task is not None and task.labels == () else NO_LABELS
        cards += f'<figure class="card"><h3>What is left of the task</h3><p>{words}</p></figure>'
    return (
        '<section id="heatmaps"><h2>How far each change moves the features</h2><p class="lead">Rows are changes of the '
        "picture, columns their strength. In the map of invariance a dark cell is good where the task needs INV, and a "
        "loss where it needs EQUI; in those of a task dark is always good.</p>"
        f'<div class="pair">{cards}</div></section>'
    )


def _retained(look: Lookup, label: str) -> Callable[[str, int], Reading | None]:
    def read(factor: str, level: int) -> Reading | None:
        found = look.kept(label, factor, level)
        return found.figure if found else None

    return read


def _reasons(look: Lookup, read: Callable[[str, int], Reading | None]) -> str:
    """Why cells have no figure, each reason once."""
    places: dict[str, list[str]] = {}
    for factor in look.names if not look.is_collapsed else ():
        for level in LEVELS:
            figure = read(factor, level)
            if figure is not None and figure.value is None:
                places.setdefault(figure.reason or "no reason given", []).append(title(factor))
    lines = [f"<li>{escape(', '.join(dict.fromkeys(at)))}: {escape(why)}</li>" for why, at in places.items()]
    return f"<figcaption>No figure for<ul>{''.join(lines)}</ul></figcaption>" if lines else ""


def _numbers(look: Lookup, read: Callable[[str, int], Reading | None]) -> str:
    """The heatmap for who cannot see it: the value at the severest strength that is judged."""
    if look.is_collapsed:
        return "collapsed, no cell has a figure"
    shown = {factor: read(factor, look.shown_level(factor) or 1) for factor in look.names}
    return ", ".join(f"{title(f)} {r.value:.2f}" for f, r in shown.items() if r is not None and r.value is not None)


def _card(figure: Figure, words: str, caption: str = "") -> str:
    return f'<figure class="card">{to_svg(figure, escape(words))}{caption}</figure>'


def _plane(plane: Plane, flat: Figure) -> str:
    words = "; ".join(f"{title(d.factor)} at {d.invariance:.2f}, {d.information:.2f}" for d in plane.dots)
    why: dict[str, list[str]] = {}
    for factor, reason in plane.missing:
        why.setdefault(reason, []).append(title(factor))
    lines = "".join(f"<li>{escape(', '.join(names))}: {escape(reason)}</li>" for reason, names in why.items())
    caption = f"<figcaption>Not on the plane<ul>{lines}</ul></figcaption>" if lines else ""
    empty = f'<figure class="card"><h3>Invariance and information</h3>{caption}</figure>'
    card = _card(flat, escape(words), caption) if plane.dots else empty
    return (
        '<section id="plane"><h2>Ignored, or forgotten?</h2><p class="lead">A change that leaves the features where '
        "they are may still be readable from them: invariance and information are two things. Each factor stands at "
        f'the severest strength that is judged.</p><div class="pair">{card}'
    )


def _sides(look: Lookup) -> str:
    figure = draw_sides([look], [look.report.encoder.name])
    return f"{_card(figure, 'Invariance of every factor beside pooled pixels and random init')}</div></section>"


def _again(report: Report) -> str:
    settings = dict(report.settings)
    command = settings.pop("command", None)
    facts = [
        ("encoder", f"{report.encoder.source}, {report.encoder.kind}, sha256 {report.encoder.sha256}"),
        ("preprocessing", report.encoder.preprocessing),
        ("data", f"{report.data.name}, sha256 {report.data.sha256}, {report.data.n_reference} reference frames"),
        *((str(key).replace("_", " "), str(value)) for key, value in settings.items() if value not in ({}, ())),
    ]
    if report.task:
        facts.append(("profile", f"{report.task.profile}, sha256 {report.task.sha256}"))
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in facts)
    line = f"<p><code>{escape(str(command))}</code></p>" if command else ""
    table = f'<div class="card wide-table"><table>{rows}</table></div>'
    return f'<section id="again"><h2>To do it again</h2>{line}{table}</section>'


def _brief(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:28]}..."
