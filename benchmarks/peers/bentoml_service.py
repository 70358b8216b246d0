"""BentoML: one worker, a route of an ASGI application. `ROBOSSL_MODEL=MODEL bentoml serve bentoml_service:Serve`.

Its own routes take no plain bytes. The encoder runs in the one thread that starlette is given for it.
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
    """Features of a frame."""
    raw = await request.body()
    return Response(await get_running_loop().run_in_executor(thread, encoder, raw))


@bentoml.asgi_app(Starlette(routes=[Route("/infer", infer, methods=["POST"])]), path="/raw")
@bentoml.service(workers=1)
class Serve:
    """The routes are all there is."""
