"""Serve the encoder with BentoML, one worker: `ROBOSSL_MODEL=MODEL bentoml serve bentoml_service:Serve`.

BentoML's own routes accept no plain bytes, so this is a route of an ASGI application. The encoder has one thread.
"""

from __future__ import annotations

import os
from asyncio import get_running_loop
from concurrent.futures import ThreadPoolExecutor

import bentoml
from encoder import Encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

encoder = Encoder(os.environ["ROBOSSL_MODEL"])
thread = ThreadPoolExecutor(1)


async def infer(request: Request) -> Response:
    """Return the features of a frame."""
    raw = await request.body()
    return Response(await get_running_loop().run_in_executor(thread, encoder, raw))


@bentoml.asgi_app(Starlette(routes=[Route("/infer", infer, methods=["POST"])]), path="/raw")
@bentoml.service(workers=1)
class Serve:
    """A service without its own routes."""
