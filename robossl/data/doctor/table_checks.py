"""Checks of files, tables and times. They need no decoded frame."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from robossl.data.doctor.facts import DataFacts, find_runs
from robossl.data.doctor.finding import Defect, Level
from robossl.data.doctor.limits import DoctorLimits
from robossl.data.sources.lerobot_frames import MAX_MISSING_FRAMES

JUMP = 1.75  # a step of time that is longer than this many usual steps is a jump
DRIFT, MUCH_DRIFT = 0.5, 3.0  # in frames: rows then pair with the neighbour of their frame; with a wrong frame
STILL, MOST_EPISODES = 0.8, 0.5  # share of equal steps of a value that hardly moves, and the share of such episodes
IDLE = 0.5  # share of an episode without a new action
SHIFT = 3.0  # distance of the means of the first and the last quarter of the episodes, in standard deviations
OUTLIER = 3.0  # distance of a length from the mean, in standard deviations
FEW_ROWS, FEW_EPISODES = 10, 8  # with fewer, nothing is said about values that stay, or about what is usual


def check_files(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find files that are missing, truncated or damaged."""
    problems = [(problem.path, problem.reason) for problem in facts.skipped]
    problems += [(video.episode, video.damage) for video in facts.videos if video.damage]
    for path, reason in problems:
        number = re.match(r"episode (\d+): ", reason)
        reason = reason.removeprefix(number[0]) if number else reason
        episode = f"episode_{int(number[1]):06d}" if number else path
        what = "file cannot be read" if re.search(r"\d", reason) else f"file {reason}"
        detail = "; ".join(filter(None, (path if number else "", reason if re.search(r"\d", reason) else "")))
        if facts.is_store:
            yield Defect("warning", episode, "ingest left it out", "repair the file and ingest again", reason)
        else:
            yield Defect("error", episode, what, "copy or record it again; ingest leaves it out", detail)


def check_notes(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Repeat what ingest corrects while it reads."""
    for problem in facts.notes:
        yield Defect("note", problem.path, problem.reason, "ingest copes; other programs may not")


def check_counts(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Compare the numbers of frames, of rows, and of what the metadata states."""
    for table in facts.tables:
        if table.num_stated is not None and table.seconds is not None and len(table.seconds) != table.num_stated:
            remedy = "correct the length in meta/episodes, or write the table again"
            numbers = f"{len(table.seconds)} rows, {table.num_stated} stated"
            yield Defect("error", table.episode, "the table has another length than stated", remedy, numbers)
    for video in facts.videos:
        if video.seconds is None or video.num_expected is None:
            continue
        lost = video.num_expected - len(video.seconds)
        numbers = f"{len(video.seconds)} frames, {video.num_expected} expected"
        if lost > 0:
            level: Level = "error"
            remedy = "encode the video again from the recording, or remove the episode"
            if lost <= MAX_MISSING_FRAMES and facts.format == "lerobot":
                level, remedy = "warning", "ingest drops the last rows; encode the video again"
            yield Defect(level, video.episode, "the video lacks frames", remedy, numbers)
        elif lost < 0:
            remedy = "check which frame belongs to which row"
            yield Defect("warning", video.episode, "the video has too many frames", remedy, numbers)


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
    """Find episodes whose frame rate is not that of most."""
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


def check_finite(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find NaN and infinite values in tables."""
    for table in facts.tables:
        if table.seconds is not None and not np.isfinite(table.seconds).all():
            yield Defect("error", table.episode, "times are NaN or infinite", "write the times again")
        for name, values in table.columns.items():
            wrong = np.flatnonzero(~np.isfinite(values).all(1))
            if len(wrong):
                detail = f"{len(wrong)} of {len(values)} rows, the first is {wrong[0]}"
                remedy = "interpolate the rows, or remove the episode: one NaN ruins a whole training"
                yield Defect("error", table.episode, f"{name} is NaN or infinite", remedy, detail)


def check_constant(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find columns, and values of columns, that never change."""
    for name, parts in _columns(facts).items():
        values = np.concatenate(parts)
        if len(values) < FEW_ROWS:
            continue
        fixed = np.flatnonzero((values == values[0]).all(0))
        if len(fixed) == values.shape[1]:
            yield Defect("warning", "", f"column {name} never changes", "check the sensor, or leave the column out")
        elif len(fixed):
            remedy = "normalising divides by zero there; leave them out"
            yield Defect("note", "", f"{name} has values that never change", remedy, f"indices {_list(fixed)}")


def check_still(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find values that hardly change in most episodes (a stuck actuator, or a joint that the task does not use)."""
    for name, parts in _columns(facts).items():
        parts = [part for part in parts if len(part) >= FEW_ROWS]
        if not parts:
            continue
        still = np.stack([(np.diff(part, axis=0) == 0).mean(0) > STILL for part in parts]).mean(0)
        constant = (np.concatenate(parts) == parts[0][0]).all(0)
        found = np.flatnonzero((still > MOST_EPISODES) & ~constant)
        if len(found):
            detail = f"indices {_list(found)}, up to {still[found].max():.0%} of the episodes"
            yield Defect("note", "", f"{name} hardly changes in most episodes", "check the actuator", detail)


def check_idle(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find episodes in which the actions stay the same for more than `IDLE` of the time without a break."""
    for table in facts.tables:
        for name, values in table.columns.items():
            if not name.startswith("action") or len(values) < FEW_ROWS:
                continue
            runs = find_runs((np.diff(values, axis=0) == 0).all(1))
            longest = max((end - first for first, end in runs), default=0) / (len(values) - 1)
            if longest > IDLE:
                remedy = "cut the pause off, or check the recorder"
                yield Defect("note", table.episode, f"{name} stays the same for long", remedy, f"{longest:.0%} of it")


def check_shift(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find columns whose mean differs much between the first and the last quarter of the episodes."""
    for name, parts in _columns(facts).items():
        quarter = len(parts) // 4
        if len(parts) < FEW_EPISODES:
            continue
        first, last = np.concatenate(parts[:quarter]), np.concatenate(parts[-quarter:])
        spread = np.sqrt((first.var(0) + last.var(0)) / 2)
        far = np.abs(first.mean(0) - last.mean(0)) / np.where(spread > 0, spread, np.inf)
        if np.isfinite(far).all() and far.max() > SHIFT:
            detail = f"index {far.argmax()}: {far.max():.1f} standard deviations"
            remedy = "the robot or its task was changed; split by time, and look at the values"
            yield Defect("note", "", f"{name} shifts between the first and the last episodes", remedy, detail)


def check_licence(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find data without a licence."""
    if "unknown" in facts.licences:
        remedy = "write it into a README or LICENSE beside the data, or ingest with --licence"
        yield Defect("warning", "", "the licence is unknown", remedy)


def check_actions(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find a LeRobot data set without actions."""
    if facts.format == "lerobot" and not any(name.startswith("action") for name in _columns(facts)):
        yield Defect("note", "", "there are no actions", "pretraining needs none; policies and world models do")


def _columns(facts: DataFacts) -> dict[str, list[Float[ndarray, "n d"]]]:
    """Return the finite rows of each column, one array per episode. Episodes with another width are left out."""
    found: dict[str, list[ndarray]] = {}
    for table in facts.tables:
        for name, values in table.columns.items():
            rows = values[np.isfinite(values).all(1)].astype(np.float64)
            parts = found.setdefault(name, [])
            if len(rows) and (not parts or parts[0].shape[1] == rows.shape[1]):
                parts.append(rows)
    return {name: parts for name, parts in found.items() if parts}


def _list(numbers: ndarray) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
