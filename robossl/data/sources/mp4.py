"""A folder of videos with an optional csv of labels, or one video file; each video is an episode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from robossl.data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, any_file, find_files, fingerprint, unreadable_reason
from robossl.data.labels import LabelTable, match_labels
from robossl.data.manifest import Problem
from robossl.data.source import Damaged, Frame, Listing, SourceOptions, Unit
from robossl.data.video import Video, read_header

FRAMES_PER_BYTE = 1e-4  # frames per byte of a file, used if no header states a number of frames
# Number of headers to read for an estimate of frames per byte. Reading all headers of a large folder takes minutes.
NUM_SAMPLED = 16


class Mp4Source:
    """Reads the videos under a folder (mp4, mov, mkv, webm, avi)."""

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        self._root = root if root.is_dir() else root.parent
        self._only = root.name if root.is_file() else None
        self._labels = labels
        self._options = options or SourceOptions()

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is a video file, or a folder with at least one video, readable or not."""
        if root.is_file():
            return root.suffix.lower() in VIDEO_SUFFIXES
        return any_file(root, VIDEO_SUFFIXES)

    def listing(self) -> Listing:
        """List one unit (episode) per video. Frame counts come from the csv, or are estimated from file sizes."""
        if self._only is None:
            paths, skipped = find_files(self._root, VIDEO_SUFFIXES)
        else:
            reason = unreadable_reason(self._root, self._only)
            paths, skipped = ([], [Problem(self._only, reason)]) if reason else ([self._only], [])
        known = {*paths, *(problem.path for problem in skipped)}
        table = match_labels(self._root, self._labels, known, self._options.label_columns)
        if self._only is None:
            skipped += [Problem(path, "listed in the csv, but missing") for path in table.rows if path not in known]
        notes = [
            Problem(path, "not listed in the csv, has no labels")
            for path in paths
            if table.rows and path not in table.rows
        ]
        if self._only is None and (pictures := find_files(self._root, IMAGE_SUFFIXES)[0]):
            what = f"{len(pictures)} images beside the videos are not read; ingest them with --format images"
            notes.append(Problem(pictures[0], what))
        frames_per_byte = self._frames_per_byte(paths)
        units = [self._unit(path, table, frames_per_byte) for path in paths]
        return Listing(units, (*skipped, *table.problems), tuple(notes), remarks=table.remarks)

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield all frames of the video; raise `Damaged` if it ends clearly before its stated end."""
        video = Video(self._root / unit.key)
        try:
            start = seconds = None
            count = 0
            for seconds, pixels in video.frames():
                count += 1
                start = seconds if start is None else start
                yield Frame(pixels, seconds - start)
            header = video.header
            frame_seconds = 1 / header.frames_per_s if header.frames_per_s else 0.1
            # No frame is missing. Skip the comparison of times, because the last frame may have a long duration.
            if header.is_counted and count >= header.num_frames:
                return
            start, seconds = start or 0.0, seconds or 0.0
            stated_seconds = header.end_seconds - start
            if seconds - start + 3 * frame_seconds < 0.95 * stated_seconds:
                raise Damaged(f"truncated: only {seconds - start:.1f} of {stated_seconds:.1f} s can be decoded")
        finally:
            video.close()

    def _unit(self, path: str, table: LabelTable, frames_per_byte: float) -> Unit:
        file, labels = self._root / path, table.labels(path)
        stated = table.rows.get(path, {}).get("frames", "")
        estimate = int(stated) if stated.isdecimal() else round(file.stat().st_size * frames_per_byte)
        return Unit(path, fingerprint(file), max(1, estimate), table.split(path), labels)

    def _frames_per_byte(self, paths: list[str]) -> float:
        num_frames = num_bytes = 0
        for path in paths[:: max(1, len(paths) // NUM_SAMPLED)]:
            try:
                num_frames += read_header(self._root / path).num_frames
                num_bytes += (self._root / path).stat().st_size
            except Damaged:
                continue  # a damaged video is reported when it is read
        return num_frames / num_bytes if num_frames and num_bytes else FRAMES_PER_BYTE
