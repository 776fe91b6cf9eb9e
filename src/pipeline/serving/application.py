"""The HTTP application: the routes of a server and the answers that they give."""

import asyncio
import base64
import hashlib
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipeline.data.reader import PictureError
from pipeline.serving import card, protocol_v2
from pipeline.serving.batching import OverloadedError
from pipeline.serving.guard import Access, Guard
from pipeline.serving.served import Answer, Served
from pipeline.serving.service import MAX_ITEMS, Service

Background = Callable[[Service], Awaitable[None]]


def create_application(service: Service, access: Access, background: Background | None = None) -> Starlette:
    """Create the application of one process.

    The task `background` runs for as long as the server does.
    """

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        service.start()
        task = asyncio.ensure_future(background(service)) if background else None
        try:
            yield
        finally:
            if task:
                task.cancel()
            service.stop()

    html = files("pipeline.serving").joinpath("page.html").read_text(encoding="utf-8")
    page_headers = _headers_of(html)

    async def page(request: Request) -> Response:
        return HTMLResponse(html, headers=page_headers)

    async def show_card(request: Request) -> Response:
        served = service.served
        path = served.source.card
        if path is None:
            raise HTTPException(404, "This model has no card: the stage evaluate writes it.")
        text = ""
        with suppress(FileNotFoundError):
            text = await asyncio.to_thread(card.page, path, served.source.name)
        if served.classifier.description.weights_sha256 not in text:
            raise HTTPException(404, "The card is gone or describes another model: restart the server.")
        return HTMLResponse(text, headers={"Content-Security-Policy": card.POLICY})

    async def metrics(request: Request) -> Response:
        model = {name: text or "" for name, text in service.served.identity.items()}
        text = service.metrics.text(model)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def about(request: Request) -> Response:
        return JSONResponse(service.served.about())

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    middleware = [Middleware(Guard, access=access, metrics=service.metrics)]
    if access.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=access.origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization"],
            )
        )
    application = Starlette(
        routes=[
            Route("/", page),
            Route("/health", health),
            Route("/predict", partial(_predict, service), methods=["POST"]),
            Route("/explain", partial(_explain, service), methods=["POST"]),
            Route("/model", about),
            Route("/card", show_card),
            Route("/metrics", metrics),
            *protocol_v2.routes(service),
        ],
        middleware=middleware,
        exception_handlers={HTTPException: _http_error, OverloadedError: _overloaded},
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False
    return application


def _headers_of(html: str) -> dict[str, str]:
    """Return headers that let a page run only its own script, and connect only to its own server."""

    def hashes(tag: str) -> str:
        contents = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in contents)
        return " ".join(f"'sha256-{digest.decode()}'" for digest in digests)

    return {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
            "img-src data: blob:; media-src blob:; connect-src 'self'; "
            "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        ),
        "Permissions-Policy": "camera=(self)",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


async def _predict(service: Service, request: Request) -> Response:
    """Answer for one picture, sent as the body, or for several, sent as the files of a form."""
    served, seen = service.served, "seen" in request.query_params
    if not _is_form(request):
        [answer] = await service.answer(served, [await request.body()])
        if isinstance(answer, PictureError):
            return JSONResponse({"error": str(answer)}, 400)
        return JSONResponse(_as_json(answer, served, seen) | {"model": served.identity})
    async with request.form(max_files=MAX_ITEMS, max_fields=MAX_ITEMS) as form:
        uploads = [upload for _, upload in form.multi_items() if isinstance(upload, UploadFile)]
        pictures = [await upload.read() for upload in uploads]
    if not pictures:
        raise HTTPException(400, "The form has no files: send each picture as a file, `-F file=@seven.png`.")
    answers = await service.answer(served, pictures)
    items = [
        {"file": upload.filename}
        | ({"error": str(answer)} if isinstance(answer, PictureError) else _as_json(answer, served, seen))
        for upload, answer in zip(uploads, answers, strict=True)
    ]
    status = 200 if any(isinstance(answer, Answer) for answer in answers) else 400
    return JSONResponse({"items": items, "model": served.identity}, status)


async def _explain(service: Service, request: Request) -> Response:
    """Answer for one picture, with the image as the model sees it and its occlusion map."""
    served = service.served
    if _is_form(request):
        raise HTTPException(415, "Send one picture as the body, not a form.")
    [answer] = await service.answer(served, [await request.body()])
    if isinstance(answer, PictureError):
        return JSONResponse({"error": str(answer)}, 400)
    found = await service.explain(served, answer)
    return JSONResponse(_as_json(answer, served, True) | {"occlusion": found, "model": served.identity})


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _as_json(answer: Answer, served: Served, seen: bool) -> dict[str, Any]:
    """Return an answer as JSON; if `seen`, it includes the image as the model saw it."""
    found: dict[str, Any] = {
        "label": answer.label,
        "probability": answer.probability,
        "probabilities": dict(zip(served.classes, map(float, answer.probabilities), strict=True)),
    }
    if answer.unlike is not None:
        found["unlike"] = answer.unlike
    if seen:
        found["seen"] = _data_url(answer)
    return found


def _data_url(answer: Answer) -> str:
    from PIL import Image

    image = answer.image[..., 0] if answer.image.ndim == 3 and answer.image.shape[2] == 1 else answer.image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text, path = error.detail, request.url.path
    if error.status_code == 405:
        text = f"{path} takes {(error.headers or {}).get('Allow')}, not {request.method}."
    elif text == "Not Found":
        text = f"There is nothing at {path}. Try the model at /, or POST a picture to /predict."
    return JSONResponse({"error": text}, error.status_code, error.headers)


async def _overloaded(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})
