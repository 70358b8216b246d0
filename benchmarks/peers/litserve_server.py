"""LitServe: one worker process, one API process. `ROBOSSL_MODEL=MODEL python litserve_server.py PORT`.

It takes JSON and forms only; a form's file is the cheaper of the two for bytes.
"""

import os
import sys

import litserve
from encoder import Encoder
from starlette.requests import Request
from starlette.responses import Response


class Serve(litserve.LitAPI):
    """A form with one file in, raw bytes out."""

    def setup(self, device: str) -> None:
        """Open the model."""
        self._encoder = Encoder(os.environ["ROBOSSL_MODEL"])

    def decode_request(
        self, request: Request
    ) -> bytes:  # so it finds out that a request is wanted; what comes is its form
        """The file of the form."""
        raw: bytes = request["frame"].file.read()
        return raw

    def predict(self, x: bytes) -> bytes:
        """Features of a frame."""
        return self._encoder(x)

    def encode_response(self, output: bytes) -> Response:
        """Bytes instead of JSON."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(Serve(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
