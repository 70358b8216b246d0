"""Checks of files, and of what their metadata state."""

from __future__ import annotations

import re
from collections.abc import Iterator

from robossl.data.doctor.facts import DataFacts
from robossl.data.doctor.finding import Defect, Level
from robossl.data.doctor.limits import DoctorLimits
from robossl.data.sources.lerobot_frames import MAX_MISSING_FRAMES


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


def check_licence(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find data without a licence."""
    if "unknown" in facts.licences:
        remedy = "write it into a README or LICENSE beside the data, or ingest with --licence"
        yield Defect("warning", "", "the licence is unknown", remedy)
