"""Evaluation: scores of frozen encoders on labelled episodes, beside references.

References are baselines that were not trained, such as random weights. PROTOCOLS holds the ways to predict classes from
features, by name. Each protocol has its own file.
"""

import inspect
from typing import Any

from robossl.common.plugins import Registry, takes


def _check(found: Any) -> str:
    if not inspect.isfunction(found):
        return "must be a function (robossl.evaluation.protocol.EvaluationProtocol)"
    named = takes(found, "train", "labels", "groups", "test", seed="0")
    return "" if named else "must take (train, labels, groups, test, *, seed)"


PROTOCOLS = Registry(
    "protocol",
    group="robossl.protocols",
    check=_check,
    built_in={
        "knn": "robossl.evaluation.knn:knn",
        "linear": "robossl.evaluation.linear:linear",
    },
)
