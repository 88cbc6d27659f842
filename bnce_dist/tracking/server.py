"""The HTTP server of a model: MLflow's protocol, as many threads as cores, refusals in one line."""

import asyncio
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.scoring_server import invocations
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bnce_dist.core.errors import InputError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 * 1024**2
"""Of a request; a larger one is refused before it is read."""
_JSON = "application/json"
_LONGEST_LINE = 500
_TOO_LARGE, _BAD, _FAILED = 413, 400, 500


def application(model: PyFuncModel) -> Starlette:
    """Return the server of a model: ``/invocations``, ``/ping`` and ``/health``, as MLflow's.

    Each core has one thread with one request; the others wait. More threads would only take the
    cores from each other.
    """
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), initializer=_use_one_core)

    async def invoke(request: Request) -> Response:
        body = await _limited_body(request)
        if body is None:
            line = (
                f"request: expected at most {MAX_BODY_BYTES} bytes, got more; send fewer at a time"
            )
            return _line(_TOO_LARGE, "REQUEST_TOO_LARGE", line)
        content_type = request.headers.get("content-type", _JSON)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, answer_request, model, body, content_type)

    async def ping(request: Request) -> Response:
        return Response("\n", media_type=_JSON)

    return Starlette(
        routes=[
            Route("/invocations", invoke, methods=["POST"]),
            Route("/ping", ping),
            Route("/health", ping),
        ]
    )


def _use_one_core() -> None:
    import torch

    torch.set_num_threads(1)


async def _limited_body(request: Request) -> bytes | None:
    """Return the body, or None as soon as it is known to be too large."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def answer_request(model: PyFuncModel, body: bytes, content_type: str) -> Response:
    """Return the predictions for a request, or one line with a status of 4xx."""
    schema = model.metadata.get_input_schema()
    try:
        if content_type.partition(";")[0].strip() != _JSON:
            raise _refused(f"content type {_JSON}", content_type)
        if schema.is_tensor_spec() and (positions := _positions(body)) is not None:
            return Response(json.dumps({"predictions": model.predict(positions)}), media_type=_JSON)
        answer = invocations(body.decode(), content_type, model, schema)
        if answer.status != 200:
            return _line(answer.status, "BAD_REQUEST", answer.response)
        return Response(answer.response, media_type=_JSON)
    except (InputError, UnicodeDecodeError) as error:
        return _line(_BAD, "BAD_REQUEST", str(error))
    except MlflowException as error:
        # It puts the whole request before what it has to say.
        message = json.loads(error.serialize_as_json())["message"].rpartition("\nError: ")[2]
        return _line(error.get_http_status_code(), error.error_code, message)
    except Exception as error:  # No traceback leaves the server.
        logger.exception("a request failed")
        return _line(_FAILED, "INTERNAL_ERROR", type(error).__name__)


def _positions(body: bytes) -> np.ndarray | None:
    """Return the positions of the usual request, without the copies that MLflow makes.

    Raises: InputError: no JSON, or no array of numbers.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _refused("JSON", error) from error
    if not isinstance(content, dict) or list(content) != ["inputs"]:
        return None
    try:
        return np.asarray(content["inputs"], dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise _refused("inputs of numbers, (batch, atoms, 3) [nm]", error) from error


def _refused(expected: str, got: object) -> InputError:
    example = "serving_input_example.json in the model's folder is an example"
    return InputError("request", expected=expected, got=got, remedy=example)


def _line(status: int, code: str, message: str) -> Response:
    line = " ".join(message.split())[:_LONGEST_LINE]
    content = json.dumps({"error_code": code, "message": line})
    return Response(content, status, media_type=_JSON)
