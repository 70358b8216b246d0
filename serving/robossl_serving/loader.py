"""ModelLoader: opens and checks the folders of model versions; retries a failed version if its files change."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from robossl.encoders.onnx_session import check_model_file, read_card
from robossl.errors import InputError, RobosslError, reason
from robossl_serving.device import Device
from robossl_serving.folder import FileStamp, read_stamp
from robossl_serving.model import Model, SessionSettings
from robossl_serving.policy import VersionChoice

_log = logging.getLogger("robossl.serving")


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version of a model that passed its checks."""

    model: Model
    stamp: FileStamp  # times and sizes of the version's files when it was loaded


class ModelLoader:
    """Opens the versions of one repository."""

    def __init__(self, root: Path, settings: SessionSettings, device: Device) -> None:
        self._root = root
        self._settings = settings
        self._device = device  # the processor that all versions share
        # By model name and version: stamp (times and sizes) of the files that failed their checks, and the reason.
        self._failed: dict[tuple[str, int], tuple[FileStamp, str]] = {}

    def open(self, name: str, version: int, *, held: LoadedVersion | None, again: bool) -> LoadedVersion:
        """Open a version; return `held` if its files have not changed.

        Args:
            name: Name of the model.
            version: Version number.
            held: The loaded version with this number; None if it is not loaded.
            again: Whether to retry a version that failed before and whose files have not changed.

        Raises:
            RobosslError: the version cannot be served; this is logged the first time.
        """
        folder = self._root / name / str(version)
        # Take the stamp before the files are read, so that a change meanwhile is noticed at the next scan.
        stamp = read_stamp(folder)
        if held is not None and held.stamp == stamp:
            self._failed.pop((name, version), None)
            return held
        seen, why = self._failed.get((name, version), (None, ""))
        if seen == stamp and not again:
            raise InputError(why)
        try:
            model = self._open(folder, held.model if held else None)
        except RobosslError as error:
            self._failed[name, version] = stamp, str(error)
            _log.error("refused", extra={"model": name, "version": version, "reason": str(error)})
            raise
        self._failed.pop((name, version), None)
        return LoadedVersion(model, stamp)

    def open_chosen(
        self, name: str, choice: VersionChoice, *, held: Mapping[int, LoadedVersion], again: bool, may_keep: bool
    ) -> tuple[dict[int, LoadedVersion], tuple[int, ...]]:
        """Open versions in the order of `choice` until `choice.num` are open; return the open and the failed versions.

        With `may_keep`, a loaded version goes on serving if its files were damaged after it was loaded.

        Raises:
            RobosslError: no version can be served.
        """
        good: dict[int, LoadedVersion] = {}
        errors: dict[int, RobosslError] = {}
        for version in choice.versions:
            if len(good) == choice.num:
                break
            try:
                good[version] = self.open(name, version, held=held.get(version), again=again)
            except RobosslError as error:
                errors[version] = error
                if may_keep and version in held:
                    good[version] = held[version]
        if good:
            return good, tuple(errors)
        raise next(iter(errors.values()))

    def failed(self) -> list[tuple[str, int]]:
        """Return name and version of all versions that failed their checks."""
        return sorted(self._failed)

    def forget(self, name: str, on_disk: Collection[int]) -> None:
        """Forget failures of versions that are no longer on disk."""
        for key in [key for key in self._failed if key[0] == name and key[1] not in on_disk]:
            del self._failed[key]

    def _open(self, folder: Path, held: Model | None) -> Model:
        """Return `held` if the folder still holds that model; otherwise open and check the model in the folder."""
        started_s = time.monotonic()
        try:
            if held is not None and (card := read_card(folder / "card.json")).model_sha256 == held.artefact:
                check_model_file(folder / "model.onnx", card)
                return held
            model = Model(folder, self._settings, self._device)
        except RobosslError:
            raise
        except Exception as error:  # onnxruntime's errors have no common base class
            _log.exception("a version could not be opened; export it again", extra={"folder": str(folder)})
            raise InputError(f"{folder} cannot be opened ({reason(error)}); export it again") from error
        _log.info("loaded", extra={**model.facts(), "seconds": round(time.monotonic() - started_s, 2)})
        return model
