"""The commands `robossl probe run | compare | check | profiles`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from robossl.common.arguments import call
from robossl.common.suggest import suggest_name
from robossl.errors import InputError
from robossl.measure.subjects.input_description import InputDescription
from robossl.probes.check import FailOn
from robossl.probes.check import check as check_report
from robossl.probes.compare import compare
from robossl.probes.factors import FACTORS
from robossl.probes.frames import LabelType
from robossl.probes.profile import Profile, load_profile, profile_names

UNDESCRIBED = InputDescription()


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
    input: InputDescription = UNDESCRIBED,
) -> str:
    """Probe an encoder: measure how changes of the picture change the features; judge the encoder for a task.

    Args:
        encoder: A run folder, an exported model, any ONNX file, grpc://HOST:PORT/MODEL, timm:NAME[@FILE],
            pip:NAME, or projector:RUN.
        data: A store of frames, a folder in the TUM RGB-D layout, or env:ID for an environment of the package.
        profile: The task: a name from `robossl probe profiles`, or a TOML file. Without a profile, the report has no
            verdicts.
        out: Folder to write report.html, report.json and pictures to.
        factors: Factors (changes of the picture or scene) to measure. By default, those that the profile names.
            Without a profile, all factors.
        quick: Use fewer frames, fewer strengths and only linear probes, so that a run takes minutes on two CPU cores.
        split: Use only this split of a store. By default, all its frames.
        columns: Columns of a store to use as labels, each as TYPE NAME: `pose state`, or `class NAME` for a label of
            whole episodes.
        labels: Fit linear heads to the labels that the profile names. Without a profile, fit them to all labels. With
            --no-labels, fit no heads and only compare features.
        frames: Number of frames to judge the encoder on. By default 500, or 200 with --quick.
        scenes: Number of scenes to make in an environment.
        image_size: Height and width of the pictures of an environment, in pixels.
        cache: Folder that keeps transformed frames and features, so that later runs need not compute them again.
        cache_gb: Largest allowed size of the cache in GB.
        device: Device that the encoder runs on.
        seed: Random seed.
        token: File with the access token for the server.
        ca: PEM file of the authority that signed the certificate of the server.
        input: Input format and network of an ONNX model, if neither a card (metadata) nor the graph states them.

    Raises:
        InputError: an argument cannot be used (checked before anything is rendered or written), or the encoder returns
            features that have a wrong shape or are not finite.
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
    """Let an encoder pass or fail by its report. Exit code 0 is a pass; 10 is risky, 11 unusable, 12 inconclusive.

    Args:
        report: The report.json of `robossl probe run`, or its folder.
        fail_on: The mildest verdict with which an encoder fails. From mild to bad: inconclusive, risky, unusable.
    """
    found = check_report(report, fail_on=fail_on)
    print(found.text)
    return found.code


def profiles(names: tuple[str, ...] = ()) -> str:
    """List the task profiles. If profiles are named, show instead what each of these tasks needs of each factor.

    Args:
        names: Profiles to show, each a name or a TOML file.
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
    """Run `robossl probe ...` and return the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: robossl probe COMMAND ...      robossl probe COMMAND --help\n")
        print("\n".join(f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()))
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        if Path(name).exists() or set(name) & set("/:."):
            line = shlex.join(["robossl", "probe", "run", name])
            raise InputError(f"{name!r} is no command; to probe an encoder: {line} --data STORE --out OUT")
        raise InputError(f"{suggest_name('command', f'probe {name}', COMMANDS)}; see robossl probe --help")
    return call(COMMANDS[name][0], rest, prog=f"robossl probe {name}")


def _described(task: Profile) -> str:
    rows = [f"{task.name}: {task.title} (version {task.version}, {'' if task.calibrated else 'un'}calibrated)"]
    labels = f"labels, the first that is there: {', '.join(task.labels)}" if task.labels else "labels: it reads none"
    rows += [task.about, labels]
    for name, need in task.factors.items():
        wanted = need.needs[0] if len(set(need.needs)) == 1 else " ".join(need.needs)
        rows.append(f"  {name:20} {wanted}, judged up to strength {need.max_level}")
    return "\n".join(rows)
