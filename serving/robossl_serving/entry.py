"""ModelEntry: the loaded versions of one model, and which version a call gets."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc
from robossl_client._proto import inference_pb2 as pb

from robossl_serving.loader import LoadedVersion
from robossl_serving.model import Model
from robossl_serving.refused import RefusedError

_log = logging.getLogger("robossl.serving")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """The state of a model; it is never changed but replaced as a whole, so that readers need no lock."""

    name: str
    current: int  # the version for all calls that name no version
    versions: Mapping[int, LoadedVersion]
    kept: frozenset[int]  # versions that the version policy or an operator wants; others are unloaded when unused
    failed: tuple[int, ...]  # versions that should be loaded, but failed their checks
    missing: tuple[int, ...]  # versions that the version policy names but that are not on disk
    policy: pb.ModelVersionPolicy
    on_disk: Mapping[int, str | None]  # versions on disk, with the sha256 of model.onnx from the card

    def models(self) -> list[Model]:
        """Return the loaded versions."""
        return [loaded.model for loaded in self.versions.values()]

    def in_order(self) -> list[int]:
        """Return the loaded version numbers, the current one last."""
        return [*(number for number in self.versions if number != self.current), self.current]

    def find(self, version: str, artefact: str | None) -> Model:
        """Find the version that a call asks for.

        Args:
            version: Version number; empty for the current version.
            artefact: sha256 of the only model.onnx that the client accepts; None if the client accepts any.

        Raises:
            RefusedError: the version is not loaded, or its model.onnx is not the one that the client accepts.
        """
        if artefact is not None:
            return self._find_pinned(version, artefact)
        wanted = version or str(self.current)
        # Compare the versions as text, because a client may send any text, for example a huge number.
        for number, loaded in self.versions.items():
            if str(number) == wanted:
                return loaded.model
        said = f"version {version[:32]!r} of {self.name} is not loaded; loaded are {join_names(self.versions)}"
        for number in self.on_disk:
            if str(number) == wanted:
                said += f". It is in the repository: {self._how_to_load(number)}"
        raise RefusedError(grpc.StatusCode.NOT_FOUND, said)

    def _find_pinned(self, version: str, artefact: str) -> Model:
        for model in self.models():
            if model.artefact == artefact and version in ("", str(model.card.version)):
                model.pinned_s = time.monotonic()
                return model
        weights = self.versions[self.current].model.card.digest[:12]
        current = f"the current one is version {self.current}, another file (with the weights {weights})"
        lying = next((number for number, sha256 in self.on_disk.items() if sha256 == artefact), None)
        if lying is None:
            said = (
                f"the pinned encoder is no longer served, and not in the repository; {current}. Connect again to take "
                "the current one, or put the pinned version back into the repository and load it by its number"
            )
        else:
            said = (
                f"the pinned encoder is no longer served: version {lying} is in the repository, but not loaded; "
                f"{current}. Connect again to take the current one. To go on with version {lying}, "
                f"{self._how_to_load(lying)}"
            )
        raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, said)

    def _how_to_load(self, version: int) -> str:
        if version in self.failed:
            return "repair it first: it failed its checks, and the server's log says why"
        return (
            f"run `robossl load HOST:PORT {self.name} --version {version}` (RepositoryModelLoad), or name it in "
            "version_policy of config.pbtxt and send the server SIGHUP"
        )


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A model version that is on disk or loaded: one row of the reply to RepositoryIndex."""

    name: str
    version: int
    ready: bool
    reason: str


def not_loaded_error(name: str, failed: Sequence[int], entry: ModelEntry | None) -> RefusedError:
    """Return the error for a failed load; its message also says which version serves calls now."""
    if failed:
        what = f"version {failed[0]} of {name} failed its checks and is not served"
        if len(failed) > 1:
            what = f"versions {join_names(failed)} of {name} failed their checks and are not served"
    else:
        what = f"the config.pbtxt of {name} cannot be used"
    if entry is not None and entry.current in failed:
        now = f"the copy of version {entry.current} that was loaded earlier is served until the server restarts"
        return RefusedError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"the files of version {entry.current} of {name} failed their checks; {now}. The server's log says why",
        )
    now = "nothing of it is served" if entry is None else f"version {entry.current} is served"
    return RefusedError(grpc.StatusCode.FAILED_PRECONDITION, f"{what}; {now}. The server's log says why")


def unknown_model_error(name: str, known: Iterable[str]) -> RefusedError:
    """Return the error for a name that no loaded model has."""
    return RefusedError(grpc.StatusCode.NOT_FOUND, f"no model {name[:128]!r} is loaded; loaded are {join_names(known)}")


def join_names(names: Iterable[object]) -> str:
    """Join names for a message.

    >>> join_names([1, 2]), join_names([])
    ('1, 2', 'none')
    """
    return ", ".join(map(str, names)) or "none"


def log_serving(entry: ModelEntry) -> None:
    """Log that calls for a model are answered from now on."""
    _log.info("serving", extra={"model": entry.name, "version": entry.current})


def log_scan(
    before: Sequence[ModelEntry], after: Sequence[ModelEntry], failed: Iterable[tuple[str, int]], *, is_told: bool
) -> None:
    """Log what a scan for new versions changed; a regular scan that changed nothing leaves no line."""
    artefacts, current = _describe(before)
    now_artefacts, now_current = _describe(after)
    loaded = [key for key, artefact in now_artefacts.items() if artefacts.get(key) != artefact]
    if is_told or loaded or now_current != current:
        names = [f"{name}/{version}" for name, version in failed]
        _log.info("scanned", extra={"loaded": loaded, "failed": names, "current": now_current})


def _describe(entries: Sequence[ModelEntry]) -> tuple[dict[str, str], dict[str, int]]:
    """Return the sha256 of each loaded model.onnx by NAME/VERSION, and the current versions by name."""
    loaded = {
        f"{entry.name}/{number}": found.model.artefact for entry in entries for number, found in entry.versions.items()
    }
    return loaded, {entry.name: entry.current for entry in entries}


def log_change(old: ModelEntry | None, new: ModelEntry, *, is_serving: bool) -> None:
    """Log if the current version changed, or if other versions than before failed their checks or are missing.

    The first version of a model is logged here only if the server listens already.
    """
    about = {"model": new.name, "version": new.current}
    if old is None:
        if is_serving:
            log_serving(new)
    elif new.current > old.current:
        _log.info("took over", extra={**about, "before": old.current})
    elif new.current < old.current:
        _log.warning("rolled back", extra={**about, "before": old.current})
    newer = [version for version in new.failed if version > new.current]
    if newer and (old is None or (old.current, old.failed) != (new.current, new.failed)):
        _log.warning("fell back", extra={**about, "failed": newer})
    if new.missing and (old is None or old.missing != new.missing):
        _log.warning(
            "version_policy names versions that are not on disk", extra={**about, "missing": list(new.missing)}
        )
