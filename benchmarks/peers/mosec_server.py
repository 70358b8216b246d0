"""Serve the encoder with mosec, one worker process: `ROBOSSL_MODEL=MODEL python mosec_server.py --port PORT`."""

from __future__ import annotations

import os

from encoder import Encoder
from mosec import Server, Worker


class Serve(Worker):
    """A worker with raw bytes instead of JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = Encoder(os.environ["ROBOSSL_MODEL"])

    def deserialize(self, data: bytes) -> bytes:
        """Return the frame unchanged."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """Return the features unchanged."""
        return data

    def forward(self, data: bytes) -> bytes:
        """Return the features of a frame."""
        return self._encoder(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Serve, num=1)
    server.run()
