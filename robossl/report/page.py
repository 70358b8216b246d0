"""The page itself: HTML from records, everything inline, every foreign text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

import numpy as np
import yaml
from robossl_client.card import licence_warnings

from robossl.report.curves import Chart, charts, draw, other_charts
from robossl.report.gallery import render_gallery
from robossl.report.neighbours import Gallery
from robossl.report.record import RunRecord, find_collapse
from robossl.report.scores import headline, render_scores

LONG_FACT = 90  # characters: beyond, it gets a line of its own


def render(record: RunRecord, gallery: Gallery | None) -> str:
    """The whole page as text."""
    style = files("robossl.report").joinpath("style.css").read_text(encoding="utf-8")
    body = [header(record), health(record), render_scores(record), curves(record)]
    body += [render_gallery(gallery), details(record)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(record.name)}: RoboSSL run</title><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def section(title: str, lead: str, content: str) -> str:
    """A titled part of the page; title and content are HTML already."""
    return f'<section><h2>{title}</h2><p class="lead">{lead}</p>{content}</section>'


def header(record: RunRecord) -> str:
    """What was trained, on what, how fast; and in one sentence what came of it."""
    tiles = "".join(
        f'<div class="{"wide" if len(value) > LONG_FACT else ""}"><dt>{escape(name)}</dt><dd>{value}</dd></div>'
        for name, value in facts(record)
    )
    summary = headline(record)
    return (
        f'<header><p class="kicker">RoboSSL run</p><h1>{escape(record.name)}</h1>'
        f'<p class="summary">{summary}</p><dl class="facts">{tiles}</dl></header>'
    )


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """Name and value (HTML) of each fact that the folder tells."""
    steps, batch = record.setting("train", "steps"), record.setting("train", "batch_size")
    pairs = [
        ("Method", escape(str(record.setting("method", "name") or "unknown"))),
        ("Backbone", escape(str(record.setting("encoder", "backbone") or "unknown"))),
        ("Steps", f"{record.last_step:,}" + (f" <small>of {steps:,}</small>" if steps else "")),
    ]
    if batch:
        pairs.append(("Samples seen", f"{record.last_step * batch:,} <small>{batch} a step</small>"))
    if "samples_per_s" in record.metrics:
        pairs.append(("Speed", f"{np.median(record.metrics['samples_per_s'].values):,.0f} <small>samples/s</small>"))
    split = record.setting("data", "split")
    data = escape(str(record.setting("data", "store") or "unknown"))
    pairs.append(("Data", data + (f" <small>split {escape(str(split))}</small>" if split else "")))
    licences = sorted({each for data in record.encoder.get("extra", {}).get("data", []) for each in data["licences"]})
    if licences:
        pairs.append(("Licences", escape(", ".join(licences)) + _licence_note(licences)))
    return pairs


def _licence_note(licences: Sequence[str]) -> str:
    return "".join(f'<small class="caution">⚠ {escape(warning)}</small>' for warning in licence_warnings(licences))


def health(record: RunRecord) -> str:
    """A banner: collapsed, was collapsed, healthy; nothing where health was not logged."""
    collapse = find_collapse(record)
    if collapse and not collapse.is_over:
        return _banner(
            "bad",
            "✗ This run has collapsed",
            f"Since step {collapse.first_step:,} {collapse.reason}, whatever they show. The encoder is of no use, and "
            "a low loss does not change that. Try a lower learning rate, a larger batch, more varied data, and the "
            "method's own head, stop-gradient and batch-norm.",
        )
    if collapse:
        return _banner(
            "warn",
            "⚠ This run collapsed for a while and came back",
            f"From step {collapse.first_step:,} {collapse.reason}; at the last check this was over.",
        )
    std, reference, rank = (record.last(f"health/{name}") for name in ("std", "std_reference", "rank"))
    if std is None or rank is None:
        return ""
    spread = f"outputs are {100 * std / reference:.0f} % as spread as can be, " if reference else ""
    return _banner("good", "✓ No collapse", f"At the last check: {spread}effective rank {rank:.0f}.")


def _banner(kind: str, title: str, text: str) -> str:
    return f'<div class="banner {kind}" role="status"><strong>{title}</strong><p>{escape(text)}</p></div>'


def curves(record: RunRecord) -> str:
    """Loss, health, online kNN; the rest folded away."""
    main = "".join(map(_figure, charts(record.metrics)))
    rest = "".join(map(_figure, other_charts(record.metrics)))
    more = f'<details><summary>Everything else that was logged</summary><div class="charts">{rest}</div></details>'
    has_health = any(name.startswith("health/") for name in record.metrics)
    return section(
        "How training went",
        "Read the loss beside the three health curves: they tell learning from collapse."
        if has_health
        else "The run ended before its health was first measured (train.health_every), so nothing here tells learning "
        "from collapse.",
        f'<div class="charts">{main}</div>{more if rest else ""}',
    )


def _figure(chart: Chart) -> str:
    caption = f"<figcaption>{escape(chart.caption)}</figcaption>" if chart.caption else ""
    return (
        f'<figure class="card"><h3>{escape(chart.title)}</h3>'
        f'<img src="{draw(chart)}" alt="{escape(chart.alt)}" width="460" height="270">{caption}</figure>'
    )


def details(record: RunRecord) -> str:
    """How to do it again."""
    commands = [str(evaluation.about.get("command", "")) for evaluation in record.evaluations]
    shown = "\n".join(command for command in commands if command)
    config = escape(yaml.safe_dump(record.config, sort_keys=False, default_flow_style=None, width=100))
    again = f"<h3>Measure it again</h3><pre>{escape(shown)}</pre>" if shown else ""
    digest = escape(str(record.encoder.get("digest", "no encoder was written yet")))
    return section(
        "To do it again",
        "The run folder holds all of this; the configuration below repeats the run.",
        f"{again}<details><summary>Configuration</summary><pre>{config}</pre></details>"
        f'<p class="digest">Encoder digest <code>{digest}</code></p>',
    )
