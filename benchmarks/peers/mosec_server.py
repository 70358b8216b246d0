"""mosec: one worker process behind its HTTP server. `ROBOSSL_MODEL=MODEL python mosec_server.py --port PORT`."""

from __future__ import annotations

import os

from encoder import Encoder
from mosec import Server, Worker


class Serve(Worker):
    """Raw bytes in and out, instead of JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = Encoder(os.environ["ROBOSSL_MODEL"])

    def deserialize(self, data: bytes) -> bytes:
        """The frame as it came."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """The features as they are."""
        return data

    def forward(self, data: bytes) -> bytes:
        """Features of a frame."""
        return self._encoder(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Serve, num=1)
    server.run()
