"""`robossl probe run | compare | check | profiles`: the invariances of an encoder, and what they cost a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from robossl.arguments import call
from robossl.errors import InputError
from robossl.measure.subjects.input_description import InputDescription
from robossl.names import suggest_name
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
    """Probe an encoder: measure what each change of the picture does to its features, and judge it for a task.

    Args:
        encoder: A run folder, an exported model, any ONNX file, grpc://HOST:PORT/MODEL, timm:NAME[@FILE],
            or projector:RUN.
        data: A store, a folder in the TUM RGB-D layout, or env:ID of one of our environments.
        profile: The task: a name from `robossl probe profiles`, or a TOML file; without it there are no verdicts.
        out: Folder of report.html, report.json and pictures.
        factors: Changes to apply; by default those of the profile, or all.
        quick: Use fewer frames and strengths and linear heads: minutes on two cores.
        split: Split of a store.
        columns: Labels of a store, type and name: `pose state`, or `class NAME` for a label of episodes.
        labels: Fit heads to the labels of the profile; --no-labels compares features only.
        frames: Number of frames to judge; by default 500, or 200 with --quick.
        scenes: Number of scenes of an environment.
        image_size: Size of the pictures of an environment in pixels.
        cache: Folder of rendered views and features to use again.
        cache_gb: Largest size of the cache in GB.
        device: Device of the encoder.
        seed: Random seed.
        token: File with the token of the server.
        ca: PEM file of the authority that signed the certificate of the server.
        input: Input of a foreign ONNX model, as far as its graph does not state it, and its network.

    Raises:
        InputError: an argument cannot be used; checked before anything is rendered or written.
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
    """Pass or fail by the verdicts of a report; the exit code is 0, or 10 risky, 11 unusable, 12 inconclusive.

    Args:
        report: The report.json of `robossl probe run`, or its folder.
        fail_on: The mildest verdict that fails.
    """
    found = check_report(report, fail_on=fail_on)
    print(found.text)
    return found.code


def profiles(names: tuple[str, ...] = ()) -> str:
    """List the task profiles, or the needs of the named ones for each factor.

    Args:
        names: Profiles by name or TOML file.
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
