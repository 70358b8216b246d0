"""Evaluation of frozen encoders on labelled episodes: one file a protocol, one line here."""

PROTOCOLS: dict[str, str] = {
    "knn": "robossl.evaluate.knn:knn",
    "linear": "robossl.evaluate.linear:linear",
}
