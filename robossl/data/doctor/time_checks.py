"""Checks of the times of rows and frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from robossl.data.doctor.facts import DataFacts
from robossl.data.doctor.finding import Defect, Level
from robossl.data.doctor.limits import DoctorLimits

JUMP = 1.75  # a step of time that is longer than this many usual steps is a jump
DRIFT, MUCH_DRIFT = 0.5, 3.0  # in frames: rows then pair with the neighbour of their frame; with a wrong frame
OFF_RATE = 0.1  # relative distance of a mean step from the stated one
OUTLIER = 3.0  # distance of a length from the mean, in standard deviations
FEW_EPISODES = 8  # with fewer, nothing is said about what is usual


def check_times(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find times that run backwards, stand still or jump."""
    for what, episode, seconds in _clocks(facts):
        steps = np.diff(seconds)
        if len(steps) == 0 or not np.isfinite(steps).all():
            continue
        back = np.flatnonzero(steps <= 0)
        if len(back):
            detail = f"{steps[back[0]]:+.3g} s after frame {back[0]}"
            remedy = "sort the rows by time, or record again with a monotonic clock"
            yield Defect("error", episode, f"{what} run backwards or stand still", remedy, detail)
        jumps = np.flatnonzero(steps > JUMP * np.median(steps))
        # A store drops frames that repeat, so a jump of its times is no loss.
        if len(jumps) and not facts.is_store and np.median(steps) > 0:
            longest = jumps[np.argmax(steps[jumps])]
            detail = f"{len(jumps)}, the longest {steps[longest]:.2f} s at {seconds[longest] - seconds[0]:.2f} s"
            remedy = "frames were lost: split the episode there, or avoid clips across it"
            yield Defect("warning", episode, f"{what} jump", remedy, detail)


def check_drift(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Compare the times of frames with the times of their rows."""
    for video in facts.videos:
        if video.seconds is None or video.row_seconds is None or len(video.seconds) != len(video.row_seconds):
            continue
        if len(video.seconds) < 2:
            continue
        off = (video.seconds - video.row_seconds) / np.median(np.diff(video.row_seconds))
        worst = float(off[np.argmax(np.abs(off))]) if np.isfinite(off).all() else 0.0
        if abs(worst) >= DRIFT:
            level: Level = "error" if abs(worst) >= MUCH_DRIFT else "warning"
            remedy = "pair frames and rows by number, or write times from one clock"
            yield Defect(level, video.episode, "the video drifts against its rows", remedy, f"{worst:+.1f} frames")


def check_rates(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find episodes whose frame rate is not the stated one, or not that of most."""
    yield from _compare_stated(facts)
    if facts.is_thinned:
        return  # the frames that are left have no rate
    rates = {picture.episode: round(picture.frames_per_s, 1) for picture in facts.pictures}
    for video in facts.videos:
        if video.seconds is not None and len(video.seconds) > 1 and (step := float(np.median(np.diff(video.seconds)))):
            rates[video.episode] = round(1 / step, 1)
    rates = {episode: rate for episode, rate in rates.items() if rate}
    usual = Counter(rates.values()).most_common(1)
    for episode, rate in rates.items():
        if abs(rate / usual[0][0] - 1) > 0.05:
            remedy = "clips are drawn by seconds and fit; a method that counts frames does not"
            yield Defect(
                "warning", episode, f"frame rate differs from the usual {usual[0][0]:g}/s", remedy, f"{rate:g}/s"
            )


def _compare_stated(facts: DataFacts) -> Iterator[Defect]:
    """Compare the mean step of the rows, without jumps, with the frame rate that the metadata states."""
    for table in facts.tables:
        if facts.frames_per_s is None or table.seconds is None or len(table.seconds) < 2:
            continue
        steps = np.diff(table.seconds)
        steps = steps[(steps > 0) & (steps <= JUMP * np.median(steps))]  # jumps are a finding of their own
        if len(steps) and abs(steps.mean() * facts.frames_per_s - 1) > OFF_RATE:
            what = f"times of rows contradict the stated {facts.frames_per_s:g}/s"
            remedy = "correct fps in meta/info.json, or write the times again; lerobot pairs frames by fps"
            yield Defect("warning", table.episode, what, remedy, f"{1 / steps.mean():.4g}/s")


def check_lengths(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find episodes that are too short for a clip, and unusually long ones."""
    seconds = {episode: float(times[-1] - times[0]) for _, episode, times in _clocks(facts) if len(times)}
    seconds |= {picture.episode: picture.end_seconds for picture in facts.pictures if picture.episode not in seconds}
    for episode in list(seconds):
        seconds.pop(episode.rpartition("/")[0], None)  # the rows of an episode of which a video is listed
    if not any(seconds.values()):
        return  # single images
    mean, spread = np.mean(list(seconds.values())), np.std(list(seconds.values()))
    for episode, length in seconds.items():
        if length < limits.clip_seconds:
            remedy = "leave them out, or choose shorter clips (--clip-seconds asks for another length)"
            what = f"shorter than a clip of {limits.clip_seconds:g} s"
            yield Defect("warning", episode, what, remedy, f"{length:.2f} s")
        elif length > mean + OUTLIER * spread and len(seconds) >= FEW_EPISODES:
            remedy = "look whether two takes were joined"
            yield Defect("note", episode, "much longer than the others", remedy, f"{length:.1f} s, mean {mean:.1f} s")


def _clocks(facts: DataFacts) -> Iterator[tuple[str, str, Float64[ndarray, " n"]]]:
    """Yield each series of times with its name. Decoded frames count if no container states their times."""
    known = {video.episode for video in facts.videos}
    for table in facts.tables:
        if table.seconds is not None:
            yield "times of rows", table.episode, table.seconds
    for video in facts.videos:
        if video.seconds is not None:
            yield "times of frames", video.episode, video.seconds
    if not facts.is_store:
        for picture in facts.pictures:
            if picture.episode not in known:
                yield "times of frames", picture.episode, picture.seconds
