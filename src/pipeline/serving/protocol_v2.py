"""The HTTP routes of KServe's Open Inference Protocol, version 2.

Tensors are sent as JSON, or as bytes after it (the extension for binary tensor data).
"""

import asyncio
import re
import struct
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.serving.served import Answer, Served
from pipeline.serving.service import MAX_ITEMS, Service

_LENGTH = "Inference-Header-Content-Length"
_JSON_BYTES = 4 * 2**20  # parsed in about 50 ms; larger tensors can be sent as binary data
_DATATYPES = {"probabilities": "FP32", "label": "BYTES"}


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _InputParameters(_Message):
    binary_data_size: Annotated[int | None, Field(ge=0)] = None


class _Input(_Message):
    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=8)]
    datatype: str
    parameters: _InputParameters = _InputParameters()
    data: list[Any] | None = None


class _OutputParameters(_Message):
    binary_data: bool | None = None


class _Output(_Message):
    name: Literal["probabilities", "label"]
    parameters: _OutputParameters = _OutputParameters()


class _RequestParameters(_Message):
    binary_data_output: bool = False


class _InferRequest(_Message):
    id: str | None = None
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[_Output], Field(max_length=2)] = []
    parameters: _RequestParameters = _RequestParameters()


def routes(service: Service) -> list[Route]:
    """Return the routes of the protocol."""

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    async def server(request: Request) -> Response:
        return JSONResponse({"name": "pipeline", "version": "2", "extensions": ["binary_tensor_data"]})

    async def model_ready(request: Request) -> Response:
        served = _requested_model(service, request)
        return JSONResponse({"name": served.source.name, "ready": service.ready})

    async def model(request: Request) -> Response:
        return JSONResponse(_metadata(_requested_model(service, request)))

    found = [Route("/v2", server), Route("/v2/health/live", live), Route("/v2/health/ready", ready)]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        found += [
            Route(path, model),
            Route(f"{path}/ready", model_ready),
            Route(f"{path}/infer", partial(_infer, service), methods=["POST"]),
        ]
    return found


def _requested_model(service: Service, request: Request) -> Served:
    served = service.served
    name, version = request.path_params["name"], request.path_params.get("version")
    if name != served.source.name:
        raise HTTPException(404, f"There is no model {name!r} on this server, only {served.source.name!r}.")
    if version is not None and version != (served.source.version or "1"):
        raise HTTPException(404, f"There is no version {version!r} of {name!r} on this server.")
    return served


def _metadata(served: Served) -> dict[str, Any]:
    return {
        "name": served.source.name,
        "versions": [served.source.version or "1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, *served.image_shape]}],
        "outputs": [_described(name, -1, served) for name in _DATATYPES],
    }


def _described(output: str, images: int, served: Served) -> dict[str, Any]:
    """Describe an output for a number of images, or for any number, which the protocol writes as -1."""
    shape = [images, len(served.classes)] if output == "probabilities" else [images]
    return {"name": output, "datatype": _DATATYPES[output], "shape": shape}


async def _infer(service: Service, request: Request) -> Response:
    served = _requested_model(service, request)
    message, rest = _parse(await request.body(), request.headers.get(_LENGTH))
    # In a thread, since it takes a while to convert lists of numbers to an array.
    images = await asyncio.to_thread(_images, message.inputs[0], rest, served)
    answers = await service.answer(served, list(images))
    found = [answer for answer in answers if isinstance(answer, Answer)]
    return _response(message, served, found)


def _parse(body: bytes, length: str | None) -> tuple[_InferRequest, memoryview]:
    """Split a body into the JSON, parsed, and the binary data after it."""
    size = len(body)
    if length is not None:
        size = int(length) if re.fullmatch(r"[0-9]{1,12}", length) else -1
        if not 0 <= size <= len(body):
            raise HTTPException(400, f"{_LENGTH} is {length[:20]}, but the body has {len(body)} bytes.")
    if size > _JSON_BYTES:
        raise HTTPException(
            413,
            f"The JSON is larger than {_JSON_BYTES // 2**20} MiB: send fewer images, or send them as binary "
            "tensor data.",
        )
    try:
        return _InferRequest.model_validate_json(body[:size]), memoryview(body)[size:]
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False, include_input=False)
        what = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise HTTPException(400, f"The request does not follow the protocol: {what}.") from None


def _images(tensor: _Input, rest: memoryview, served: Served) -> NDArray[np.uint8]:
    """Return the images in a tensor, uint8 (n, *image_shape)."""
    wanted = [-1, *served.image_shape]
    if tensor.name != "images" or tensor.datatype != "UINT8":
        raise HTTPException(
            400,
            f"The input is {tensor.name!r} of {tensor.datatype}; it must be 'images' of UINT8, shape "
            f"{wanted}, with pixels from 0 to 255.",
        )
    if not tensor.shape or tensor.shape[1:] != wanted[1:]:
        raise HTTPException(400, f"The images have the shape {tensor.shape}; it must be {wanted}.")
    number = tensor.shape[0]
    if not 1 <= number <= MAX_ITEMS:
        raise HTTPException(400, f"There are {number} images; a request must have 1 to {MAX_ITEMS}.")
    size = tensor.parameters.binary_data_size
    if size is not None:
        if size != prod(tensor.shape) or size != len(rest):
            raise HTTPException(
                400,
                f"The shape {tensor.shape} needs {prod(tensor.shape)} bytes; binary_data_size is {size}, and "
                f"{len(rest)} bytes were sent.",
            )
        return np.frombuffer(rest, np.uint8).reshape(tensor.shape)
    return _from_lists(tensor.data or [], tensor.shape)


def _from_lists(data: Sequence[Any], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Convert nested or flat lists of pixels to an array of `shape`."""
    try:
        # As objects: in an array of texts, each would take as much memory as the longest.
        array = np.asarray(data, object)
    except ValueError:
        raise HTTPException(400, "The data is not a tensor: its lists have different lengths.") from None
    if array.size != prod(shape):
        raise HTTPException(400, f"The data has {array.size} values; it must have {prod(shape)} pixels.")
    if not all(type(value) is int and 0 <= value <= 255 for value in array.flat):
        raise HTTPException(400, "The data has values that are not whole numbers from 0 to 255.")
    return array.astype(np.uint8).reshape(shape)


def _response(message: _InferRequest, served: Served, answers: Sequence[Answer]) -> Response:
    tails: list[bytes] = []
    outputs: list[dict[str, Any]] = []
    for output in message.outputs or [_Output(name="probabilities"), _Output(name="label")]:
        binary = output.parameters.binary_data
        described = _described(output.name, len(answers), served)
        if message.parameters.binary_data_output if binary is None else binary:
            tails.append(_bytes(output.name, answers))
            described["parameters"] = {"binary_data_size": len(tails[-1])}
        elif output.name == "label":
            described["data"] = [answer.label for answer in answers]
        else:
            described["data"] = [float(value) for answer in answers for value in answer.probabilities]
        outputs.append(described)
    whole: dict[str, Any] = {
        "model_name": served.source.name,
        "model_version": served.source.version or "1",
        "outputs": outputs,
    }
    if message.id is not None:
        whole["id"] = message.id
    head = JSONResponse(whole)
    if not tails:
        return head
    return Response(
        bytes(head.body) + b"".join(tails),
        media_type="application/octet-stream",
        headers={_LENGTH: str(len(head.body))},
    )


def _bytes(name: str, answers: Sequence[Answer]) -> bytes:
    if name == "probabilities":
        return np.stack([answer.probabilities for answer in answers]).astype("<f4").tobytes()
    labels = [answer.label.encode() for answer in answers]
    return b"".join(struct.pack("<I", len(label)) + label for label in labels)
