"""`robossl.probe`: measure the invariances of an encoder and judge them for a task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from robossl.common.arguments import spelled
from robossl.common.checks import check_positive, check_range
from robossl.common.paths import StrPath
from robossl.encoders.inference import check_device
from robossl.measure.subjects import check_source, open_subject, pixels_reference, random_reference
from robossl.measure.subjects.input_description import InputDescription
from robossl.probes.factors import FACTORS
from robossl.probes.frames import LabelType
from robossl.probes.output import write_outputs
from robossl.probes.prepare import prepare
from robossl.probes.profile import load_profile
from robossl.probes.result import Report
from robossl.probes.run import probe as run_probe
from robossl.probes.settings import QUICK, ProbeSettings
from robossl.probes.sources import open_frames
from robossl.probes.start import check_free, check_place, choose_factors

GB = 1e9
UNDESCRIBED = InputDescription()


def probe(
    encoder: StrPath,
    *,
    data: StrPath,
    profile: StrPath | None = None,
    out: StrPath | None = None,
    factors: Sequence[str] = (),
    quick: bool = False,
    split: str | None = None,
    columns: Mapping[LabelType, str] | None = None,
    labels: bool = True,
    frames: int | None = None,
    scenes: int = 2500,
    image_size: int = 96,
    cache: StrPath = ".cache/probes",
    cache_gb: float = 10.0,
    device: Literal["cpu", "cuda"] = "cpu",
    seed: int = 0,
    token: StrPath | None = None,
    ca: StrPath | None = None,
    input: InputDescription = UNDESCRIBED,
) -> Report:
    """Probe an encoder: measure how changes of the picture change the features; judge the encoder for a task.

    Args:
        encoder: A run, an encoder folder, an exported model, any ONNX file, `grpc://HOST:PORT/MODEL`,
            `timm:NAME[@FILE]`, `pip:NAME`, or `projector:RUN`.
        data: A store of frames, a folder in the TUM RGB-D layout, or `env:ID` for an environment of the package.
        profile: The task: a name from `robossl probe profiles`, or a TOML file. Without a profile, the report has no
            verdicts.
        out: Folder to write report.html, report.json and pictures to. By default, only the cache is written.
        factors: Factors (changes of the picture or scene) to measure. By default, those that the profile names.
            Without a profile, all factors.
        quick: Use fewer frames, fewer strengths and only linear probes, so that a run takes minutes on two CPU cores.
        split: Use only this split of a store. By default, all its frames.
        columns: Columns of a store to use as labels, by label type: `{"pose": "state"}`, or `{"class": "scene"}` for a
            label of whole episodes.
        labels: Fit linear heads to the labels that the profile names. Without a profile, fit them to all labels. If
            False, fit no heads and only compare features.
        frames: Number of frames to judge the encoder on. By default 500, or 200 with `quick`.
        scenes: Number of scenes to make in an environment.
        image_size: Height and width of the pictures of an environment, in pixels.
        cache: Folder that keeps transformed frames and features, so that later runs need not compute them again.
        cache_gb: Largest allowed size of the cache in GB.
        device: Device that the encoder runs on, cpu or cuda.
        seed: Random seed.
        token: File with the access token for a server.
        ca: PEM file of the authority that signed the certificate of a server.
        input: Input format and network of an ONNX model, if neither a card (metadata) nor the graph states them.

    Returns:
        The report. `print(report)` shows the verdicts. The fields `readings`, `references` and `verdicts` hold every
        measured value with its interval.

    Raises:
        InputError: an argument cannot be used (checked before anything is rendered or written), or the encoder returns
            features that have a wrong shape or are not finite.
        ResourceError: the disk is full, or a server does not answer. Finished work is kept in the cache.

    Example:
        >>> import robossl
        >>> report = robossl.probe("runs/tiny", data="stores/clips", factors=["brightness"], quick=True, frames=20)
        clips: 4 frames in 2 clusters (episode) are judged, 2 are for reference; labels: scene
        ...
        >>> report
        Report(tiny on clips: not judged)
    """
    given = locals()
    encoder, data = os.fspath(encoder), os.fspath(data)
    command = spelled(probe, given | {"encoder": encoder, "data": data}, prog="robossl probe run")
    check_range(0, 2**32 - 1, seed=seed)
    check_positive(cache_gb=cache_gb)
    check_range(2, frames=frames)
    task = None if profile is None else load_profile(os.fspath(profile), factors=FACTORS)
    names = choose_factors(factors, task)
    cache, token, ca = Path(cache), _path(token), _path(ca)
    if out is not None:
        check_free(Path(out), encoder=encoder, profile=task.name if task else None)
        check_place(Path(out), option="--out")
    check_place(cache, option="--cache")
    check_device(device)
    check_source(encoder, described=input, token=token, ca=ca)
    source = open_frames(
        data,
        split=split,
        columns=None if columns is None else dict(columns),
        num_scenes=scenes,
        image_size=image_size,
        seed=seed,
    )
    settings = replace(QUICK if quick else ProbeSettings(), seed=seed)
    settings = settings if frames is None else replace(settings, n_evaluation=frames)
    prepared = prepare(source, profile=task, factors=names, cache=cache, settings=settings, use_labels=labels)
    subject = open_subject(encoder, described=input, device=device, token=token, ca=ca)
    references = {
        "pixels": pixels_reference(),
        "random_init": random_reference(subject, seed=seed, outputs=subject.outputs, device=device),
    }
    found = run_probe(subject, references, prepared, cache=cache, limit_bytes=int(cache_gb * GB), command=command)
    if out is not None:
        write_outputs(found, Path(out))
    return found.report


def _path(given: StrPath | None) -> Path | None:
    return None if given is None else Path(given)
