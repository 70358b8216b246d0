"""`robossl probe run | compare | check | profiles`: which invariances an encoder has, and what they cost a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from robossl.arguments import call
from robossl.errors import InputError
from robossl.names import unknown
from robossl.probes.check import FailOn
from robossl.probes.check import check as check_report
from robossl.probes.compare import compare
from robossl.probes.factors import FACTORS
from robossl.probes.frames import LabelType
from robossl.probes.profile import Profile, load_profile, profile_names
from robossl.probes.subjects.described import Described

UNDESCRIBED = Described()


def run(
    encoder: str,
    *,
    data: str,
    profile: str | None = None,
    out: Path,
    factors: tuple[str, ...] = (),
    quick: bool = False,
    split: str | None = None,
    columns: dict[LabelType, str] | None = None,
    labels: bool = True,
    frames: int | None = None,
    scenes: int = 2500,
    image_size: int = 96,
    cache: Path = Path(".cache/probes"),
    cache_gb: float = 10.0,
    device: Literal["cpu", "cuda"] = "cpu",
    seed: int = 0,
    token: Path | None = None,
    ca: Path | None = None,
    input: Described = UNDESCRIBED,
) -> str:
    """Probe an encoder: what each change of the picture does to its features, and whether that fits a task.

    Args:
        encoder: A run folder, an exported model, any ONNX file, grpc://HOST:PORT/MODEL, timm:NAME[@FILE],
            or projector:RUN.
        data: A store, a folder in the TUM RGB-D layout, or env:ID of one of our environments.
        profile: The task: a name that `robossl probe profiles` lists, or a TOML file; without it nothing is judged.
        out: Folder of report.html, report.json and pictures.
        factors: Which changes; those of the profile, or all.
        quick: Fewer frames and strengths, linear read-outs: minutes on two cores.
        split: Of a store.
        columns: What of a store is a label: type and name, as in `pose state`, or `class label` for an episode's own.
        labels: Fit heads to the labels that the profile reads; without, only features are compared.
        frames: How many are judged; 500, or 200 where it is quick.
        scenes: Of an environment.
        image_size: Of an environment, pixels.
        cache: Folder of rendered views and features, for the next run.
        cache_gb: How large it may get.
        device: Where the encoder runs.
        seed: Of all that is drawn.
        token: File with the token of the server that grpc:// names.
        ca: PEM file of the authority that signed its certificate.
        input: What an ONNX model of others takes, where its graph does not say, and which network it is.

    Raises:
        InputError: whatever cannot be done, before frames are rendered and before anything is written.
    """
    from robossl.probes import api
    from robossl.probes.output import summary

    report = api.probe(
        encoder,
        data=data,
        profile=profile,
        out=out,
        factors=factors,
        quick=quick,
        split=split,
        columns=columns,
        labels=labels,
        frames=frames,
        scenes=scenes,
        image_size=image_size,
        cache=cache,
        cache_gb=cache_gb,
        device=device,
        seed=seed,
        token=token,
        ca=ca,
        input=input,
    )
    return "\n".join([*summary(report), f"look at {out / 'report.html'}; {out / 'report.json'} has every figure"])


def check(report: Path, *, fail_on: FailOn = "inconclusive") -> int:
    """Pass or fail by the verdicts of a report: exit code 0, or 10 risky, 11 unusable, 12 inconclusive.

    Args:
        report: report.json, as `robossl probe run` wrote it, or its folder.
        fail_on: The mildest verdict that fails.
    """
    found = check_report(report, fail_on=fail_on)
    print(found.text)
    return found.code


def profiles(names: tuple[str, ...] = ()) -> str:
    """List the task profiles; or of those named, what they ask of each factor.

    Args:
        names: Profiles, by name or as TOML files.
    """
    if not names:
        found = [load_profile(name, factors=FACTORS) for name in profile_names()]
        width = max(len(each.name) for each in found)
        return "\n".join(f"{each.name:{width}}  {each.title}" for each in found)
    return "\n\n".join(_described(load_profile(name, factors=FACTORS)) for name in names)


COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {
    "run": (run, "probe an encoder and write a report"),
    "compare": (compare, "put reports on the same frames side by side"),
    "check": (check, "pass or fail by a report's verdicts, for a deployment pipeline"),
    "profiles": (profiles, "list the tasks, or what one asks of each factor"),
}


def command(argv: Sequence[str]) -> int:
    """`robossl probe ...`; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: robossl probe COMMAND ...      robossl probe COMMAND --help\n")
        print("\n".join(f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()))
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        raise InputError(f"{unknown('command', f'probe {name}', COMMANDS)}; see robossl probe --help")
    return call(COMMANDS[name][0], rest, prog=f"robossl probe {name}")


def _described(task: Profile) -> str:
    rows = [f"{task.name}: {task.title} (version {task.version}, {'' if task.calibrated else 'un'}calibrated)"]
    labels = f"labels, the first that is there: {', '.join(task.labels)}" if task.labels else "labels: it reads none"
    rows += [task.about, labels]
    for name, need in task.factors.items():
        wanted = need.needs[0] if len(set(need.needs)) == 1 else " ".join(need.needs)
        rows.append(f"  {name:20} {wanted}, judged up to strength {need.max_level}")
    return "\n".join(rows)
