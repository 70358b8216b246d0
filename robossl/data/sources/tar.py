"""Tar archives of images with an optional csv of labels beside them; images are read in place, by offset."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from robossl.data.files import (
    IMAGE_SUFFIXES,
    NOT_UTF8,
    any_file,
    escape_name,
    find_files,
    fingerprint,
    is_utf8,
    leaves_root,
)
from robossl.data.labels import label_from_path, match_labels
from robossl.data.manifest import Problem
from robossl.data.pictures import decode_image
from robossl.data.source import Frame, Listing, SourceOptions, Unit

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class TarSource:
    """Reads each image as an episode of one frame; labels come from the csv and from folders in the archive."""

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        self._root = root if root.is_dir() else root.parent
        self._only = root.name if root.is_file() else None
        self._labels = labels
        self._options = options or SourceOptions()

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is a tar archive, compressed or not, or a folder with one."""
        if root.is_file():
            return root.name.lower().endswith((".tar", *_COMPRESSED))
        return any_file(root, {".tar", *_COMPRESSED})

    def listing(self) -> Listing:
        """List one unit (episode) per image; read only the headers of the archives' members."""
        archives, skipped = find_files(self._root, {".tar", *_COMPRESSED})
        if self._only is not None:
            archives = [name for name in archives if name == self._only]
            skipped = [problem for problem in skipped if problem.path == self._only]
        members: dict[str, Unit] = {}
        for archive in archives:
            if archive.lower().endswith(_COMPRESSED):
                skipped.append(
                    Problem(archive, "compressed archive, cannot be read in place; unpack it to a .tar or a folder")
                )
            else:
                members |= self._members(archive, "" if len(archives) == 1 else f"{archive}/", skipped)
        table = match_labels(self._root, self._labels, members, self._options.label_columns)
        missing = [Problem(path, "listed in the csv, but missing") for path in table.rows if path not in members]
        units = []
        for key, unit in sorted(members.items()):
            split, labels = label_from_path(str(unit.address["member"]))
            units.append(
                Unit(key, unit.fingerprint, 1, table.split(key) or split, labels | table.labels(key), unit.address)
            )
        return Listing(units, (*skipped, *missing, *table.problems), remarks=table.remarks)

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the image."""
        archive = str(unit.address["archive"])
        with open(self._root / archive, "rb") as file:
            file.seek(int(unit.address["offset"]))
            data = file.read(int(unit.address["size"]))
        yield Frame(decode_image(data))

    def _members(self, archive: str, prefix: str, skipped: list[Problem]) -> dict[str, Unit]:
        path = self._root / archive
        size, print_ = path.stat().st_size, fingerprint(path)
        found: dict[str, Unit] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if Path(member.name).suffix.lower() not in IMAGE_SUFFIXES:
                        continue
                    reason = refuse_member(member, size)
                    if reason:
                        skipped.append(Problem(f"{archive}:{escape_name(member.name)}", reason))
                        continue
                    name = member.name.removeprefix("./")
                    address: dict[str, str | int | float] = {
                        "archive": archive,
                        "member": name,
                        "offset": member.offset_data,
                        "size": member.size,
                    }
                    found[prefix + name] = Unit(prefix + name, f"{print_}@{member.offset_data}", 1, address=address)
                # tarfile treats a cut between two members as the end of the archive.
                if size < tar.offset + tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("no end marker")
        except (tarfile.TarError, OSError) as error:
            skipped.append(Problem(archive, f"archive breaks off after {len(found)} images ({error})"))
        return found


def refuse_member(member: tarfile.TarInfo, archive_bytes: int) -> str:
    """Return why a member of an archive must not or cannot be read; "" if it may be read."""
    if not is_utf8(member.name):
        return NOT_UTF8
    if leaves_root(member.name):
        return "path leaves the archive"
    if not member.isreg() or member.issparse():
        return "a link or special file inside the archive"
    if member.size == 0:
        return "empty file (0 bytes)"
    if member.offset_data + member.size > archive_bytes:
        return "truncated: its bytes lie behind the end of the archive"
    return ""
