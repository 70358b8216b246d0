"""Evaluate frozen encoders on labelled episodes.

PROTOCOLS are the ways to predict classes from features, by name; each protocol has its own file.
"""

import inspect

from robossl.plugins import Registry

PROTOCOLS = Registry(
    "protocol",
    group="robossl.protocols",
    check=lambda found: (
        "" if inspect.isfunction(found) else "must be a function (robossl.evaluate.protocol.EvaluationProtocol)"
    ),
    built_in={
        "knn": "robossl.evaluate.knn:knn",
        "linear": "robossl.evaluate.linear:linear",
    },
)
