"""RoboSSL: pretrain visual encoders on robot video, serve them to control loops, probe their invariances first.

    store = robossl.ingest("videos/", out="stores/mine")
    run = robossl.pretrain("simsiam_resnet18_video", store=store)
    features = robossl.load_encoder(run)(frames)["pooled"]

Names are imported when they are first used: `import robossl` takes milliseconds and no torch.
"""

from __future__ import annotations

import pkgutil
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from robossl.errors import InputError as InputError
from robossl.errors import ResourceError as ResourceError
from robossl.errors import RobosslError as RobosslError
from robossl.version import __version__ as __version__

if TYPE_CHECKING:
    from robossl.data.ingest import ingest as ingest
    from robossl.data.store import Store as Store
    from robossl.data.store import open_store as open_store
    from robossl.encode import FrameEncoder as FrameEncoder
    from robossl.encode import load_encoder as load_encoder
    from robossl.evaluate.api import evaluate as evaluate
    from robossl.evaluate.result import Scores as Scores
    from robossl.export import export as export
    from robossl.method import Loss as Loss
    from robossl.method import Method as Method
    from robossl.pretrain import pretrain as pretrain
    from robossl.probes.api import probe as probe
    from robossl.probes.result import Report as Report
    from robossl.run import RunConfig as RunConfig
    from robossl.run import load_config as load_config
    from robossl.runs import Run as Run
    from robossl.runs import open_run as open_run
    from robossl.views import Batch as Batch
    from robossl.views import ViewSpec as ViewSpec

_LAZY = {
    "ingest": "robossl.data.ingest:ingest",
    "open_store": "robossl.data.store:open_store",
    "load_config": "robossl.run:load_config",
    "pretrain": "robossl.pretrain:pretrain",
    "open_run": "robossl.runs:open_run",
    "load_encoder": "robossl.encode:load_encoder",
    "export": "robossl.export:export",
    "evaluate": "robossl.evaluate.api:evaluate",
    "probe": "robossl.probes.api:probe",
    "Store": "robossl.data.store:Store",
    "RunConfig": "robossl.run:RunConfig",
    "Run": "robossl.runs:Run",
    "FrameEncoder": "robossl.encode:FrameEncoder",
    "Scores": "robossl.evaluate.result:Scores",
    "Report": "robossl.probes.result:Report",
    "Method": "robossl.method:Method",
    "Loss": "robossl.method:Loss",
    "Batch": "robossl.views:Batch",
    "ViewSpec": "robossl.views:ViewSpec",
}

__all__ = [*_LAZY, "InputError", "ResourceError", "RobosslError"]


if not TYPE_CHECKING:  # a type checker must see an unknown name as an error

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'robossl' has no attribute {name!r}")
        return pkgutil.resolve_name(_LAZY[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


class _Package(ModuleType):
    """Keeps `robossl.evaluate` the function: importing a module of that name would set the attribute to the module."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
