"""Evaluation: scores of frozen encoders on labelled episodes, beside references.

References are baselines that were not trained, such as random weights. PROTOCOLS holds the ways to predict classes from
features, by name. Each protocol has its own file.
"""

import inspect

from robossl.common.plugins import Registry

PROTOCOLS = Registry(
    "protocol",
    group="robossl.protocols",
    check=lambda found: (
        "" if inspect.isfunction(found) else "must be a function (robossl.evaluation.protocol.EvaluationProtocol)"
    ),
    built_in={
        "knn": "robossl.evaluation.knn:knn",
        "linear": "robossl.evaluation.linear:linear",
    },
)
