"""RoboSSL: pretrain visual encoders on robot video, probe their invariances, serve them to control loops.

    store = robossl.ingest("videos/", out="stores/mine")
    run = robossl.pretrain("simsiam_resnet18_video", store=store)
    features = robossl.load_encoder(run)(frames)["pooled"]

Each name is imported at its first use, so `import robossl` takes milliseconds and does not load torch.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Any

from robossl.common.version import __version__ as __version__
from robossl.errors import InputError as InputError
from robossl.errors import ResourceError as ResourceError
from robossl.errors import RobosslError as RobosslError
from robossl.errors import RunInterrupted as RunInterrupted

if TYPE_CHECKING:
    from robossl.data.ingest import ingest as ingest
    from robossl.data.merge import merge as merge
    from robossl.data.store import Store as Store
    from robossl.data.store import open_store as open_store
    from robossl.encoders.inference import FrameEncoder as FrameEncoder
    from robossl.encoders.inference import load_encoder as load_encoder
    from robossl.evaluation.api import evaluate as evaluate
    from robossl.evaluation.result import Scores as Scores
    from robossl.exporting.export import export as export
    from robossl.methods.base import Loss as Loss
    from robossl.methods.base import Method as Method
    from robossl.policies.api import transfer as transfer
    from robossl.policies.calibration.api import calibrate as calibrate
    from robossl.policies.calibration.result import CalibrationResult as CalibrationResult
    from robossl.policies.export_policy import export_policy as export_policy
    from robossl.policies.load import LoadedPolicy as LoadedPolicy
    from robossl.policies.load import load_policy as load_policy
    from robossl.policies.result import TransferResult as TransferResult
    from robossl.probes.api import probe as probe
    from robossl.probes.result import Report as Report
    from robossl.training.pretrain import pretrain as pretrain
    from robossl.training.run_config import RunConfig as RunConfig
    from robossl.training.run_config import load_config as load_config
    from robossl.training.runs import Run as Run
    from robossl.training.runs import open_run as open_run
    from robossl.views import Batch as Batch
    from robossl.views import ViewSpec as ViewSpec

_LAZY = {
    "ingest": "robossl.data.ingest:ingest",
    "merge": "robossl.data.merge:merge",
    "open_store": "robossl.data.store:open_store",
    "load_config": "robossl.training.run_config:load_config",
    "pretrain": "robossl.training.pretrain:pretrain",
    "open_run": "robossl.training.runs:open_run",
    "load_encoder": "robossl.encoders.inference:load_encoder",
    "export": "robossl.exporting.export:export",
    "evaluate": "robossl.evaluation.api:evaluate",
    "probe": "robossl.probes.api:probe",
    "transfer": "robossl.policies.api:transfer",
    "calibrate": "robossl.policies.calibration.api:calibrate",
    "export_policy": "robossl.policies.export_policy:export_policy",
    "load_policy": "robossl.policies.load:load_policy",
    "Store": "robossl.data.store:Store",
    "RunConfig": "robossl.training.run_config:RunConfig",
    "Run": "robossl.training.runs:Run",
    "FrameEncoder": "robossl.encoders.inference:FrameEncoder",
    "Scores": "robossl.evaluation.result:Scores",
    "Report": "robossl.probes.result:Report",
    "TransferResult": "robossl.policies.result:TransferResult",
    "LoadedPolicy": "robossl.policies.load:LoadedPolicy",
    "CalibrationResult": "robossl.policies.calibration.result:CalibrationResult",
    "Method": "robossl.methods.base:Method",
    "Loss": "robossl.methods.base:Loss",
    "Batch": "robossl.views:Batch",
    "ViewSpec": "robossl.views:ViewSpec",
}

__all__ = [*_LAZY, "InputError", "ResourceError", "RobosslError", "RunInterrupted"]


# Type checkers skip this block, so that they report an unknown name as an error.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'robossl' has no attribute {name!r}")
        return pkgutil.resolve_name(_LAZY[name])


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
