"""The page about a run, rendered from its records."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import yaml
from robossl_client.card import licence_warnings

from robossl.evaluation.table import LEGEND, notes
from robossl.report.curves import charts, draw, other_charts
from robossl.report.html import Banner, Fact, render_template
from robossl.report.neighbours import Gallery
from robossl.report.record import RunRecord, find_collapse
from robossl.report.scores import advise_measurement, make_cards, make_headline

LONG_FACT = 55  # in characters; a longer fact gets a line of its own


def render(record: RunRecord, gallery: Gallery | None) -> str:
    """Return the whole page as text."""
    commands = [str(evaluation.about.get("command", "")) for evaluation in record.evaluations]
    return render_template(
        "robossl.report",
        "run.html",
        record=record,
        headline=make_headline(record),
        first=advise_measurement(record),
        facts=list_facts(record),
        health=describe_health(record),
        cards=make_cards(record),
        legend=LEGEND,
        notes=dict.fromkeys(note for evaluation in record.evaluations for note in notes(evaluation)),
        charts=charts(record.metrics),
        other_charts=other_charts(record.metrics),
        draw=draw,
        has_health=_has_health(record.metrics),
        gallery=gallery,
        commands="\n".join(filter(None, commands)),
        config=yaml.safe_dump(record.config, sort_keys=False, default_flow_style=None, width=100),
        digest=record.encoder.get("digest", "no encoder was written yet"),
    )


def list_facts(record: RunRecord) -> list[Fact]:
    """Return the facts at the top of the page, such as method, length, speed and data of the run."""
    steps, batch = record.setting("train", "steps"), record.setting("train", "batch_size")
    found = [
        Fact("Method", str(record.setting("method", "name") or "unknown")),
        Fact("Backbone", str(record.setting("encoder", "backbone") or "unknown")),
        Fact("Steps", f"{record.last_step:,}", f"of {steps:,}" if steps else ""),
    ]
    if batch:
        found.append(Fact("Samples seen", f"{record.last_step * batch:,}", f"{batch} a step"))
    if "samples_per_s" in record.metrics:
        found.append(Fact("Speed", f"{np.median(record.metrics['samples_per_s'].values):,.0f}", "samples/s"))
    split = record.setting("data", "split")
    found.append(Fact("Data", str(record.setting("data", "store") or "unknown"), f"split {split}" if split else ""))
    extra = record.encoder.get("extra", {})
    sources = (*extra.get("data", []), *extra.get("teachers", []))
    licences = sorted({each for source in sources for each in source["licences"]})
    if licences:
        found.append(Fact("Licences", ", ".join(licences), warnings=licence_warnings(licences)))
    return [fact._replace(is_wide=_length(fact) > LONG_FACT) for fact in found]


def _length(fact: Fact) -> int:
    return sum(map(len, (fact.value, fact.detail, *fact.warnings)))


def _has_health(metrics: Mapping[str, object]) -> bool:
    return any(name.startswith("health/") for name in metrics)


def describe_health(record: RunRecord) -> Banner | None:
    """Return a banner that says whether the run collapsed; None if its health was not logged."""
    collapse = find_collapse(record)
    if collapse and not collapse.is_over:
        return Banner(
            "bad",
            "✗ This run has collapsed",
            f"Since step {collapse.first_step:,} {collapse.reason}. The encoder is useless, however low the loss. Try "
            "a lower learning rate, a larger batch, more varied data, and the method's own head, stop-gradient and "
            "batch-norm.",
        )
    if collapse:
        return Banner(
            "warn",
            "⚠ This run collapsed for a while and came back",
            f"From step {collapse.first_step:,} {collapse.reason}; at the last check this was over.",
        )
    std, reference, rank = (record.last(f"health/{name}") for name in ("std", "std_reference", "rank"))
    if std is None or rank is None:
        return None
    spread = f"outputs are {100 * std / reference:.0f} % as spread as can be, " if reference else ""
    return Banner("good", "✓ No collapse", f"At the last check: {spread}effective rank {rank:.0f}.")
