"""Serve the encoder with LitServe, one worker, one API process: `ROBOSSL_MODEL=MODEL python litserve_server.py PORT`.

LitServe accepts only JSON and forms; for bytes, a file in a form is cheaper.
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

    # LitServe passes the form only if the argument is annotated as a Request.
    def decode_request(self, request: Request) -> bytes:
        """Read the file of the form."""
        raw: bytes = request["frame"].file.read()
        return raw

    def predict(self, x: bytes) -> bytes:
        """Return the features of a frame."""
        return self._encoder(x)

    def encode_response(self, output: bytes) -> Response:
        """Reply with bytes instead of JSON."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(Serve(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
