"""Evaluation: scores of frozen encoders on labelled episodes, beside references.

PROTOCOLS are the ways to predict classes from features, by name; each protocol has its own file.
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
