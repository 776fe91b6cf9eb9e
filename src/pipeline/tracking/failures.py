"""Say in a sentence why the MLflow store failed, and find out whether it answers at all."""

import re
import socket
import ssl
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from pipeline.artifacts.workspace import Workspace
from pipeline.config.schema import TrackingSection
from pipeline.errors import PipelineError
from pipeline.tracking.store import import_mlflow, is_server, uri_of

_REMEDIES = {
    401: "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
    404: "Is this the address of MLflow, with its path?",
    413: "The server, or a proxy in front of it, limits the size of files.",
}
# MLflow, requests and urllib3 keep the status, and the page that came with it, only in their messages.
_STATUS = (
    r"failed with error code (\d{3}) != 200\. Response body: '(.*)'"
    r"|^(\d{3}) \w+ Error: |too many (\d{3}) error responses"
)
_NOT_JSON = "response body was not in a valid JSON format"


def answers(tracking: TrackingSection, workspace: Workspace) -> bool:
    """Return whether the store answers as MLflow does, so that an error is only about one run."""
    if not is_server(tracking, workspace):
        return True
    import_mlflow(tracking, workspace)
    import mlflow

    try:
        mlflow.MlflowClient(uri_of(tracking, workspace)).search_experiments(max_results=1)
    except Exception:
        return False
    return True


def unreachable(
    error: Exception,
    tracking: TrackingSection,
    workspace: Workspace,
    failed: str = "could not be brought up to date",
) -> str:
    """Return the error message for a store that can't be reached or rejected a request."""
    reason = textwrap.shorten(_reason(error), 300, placeholder=" ...") or type(error).__name__
    text = f"MLflow at {uri_of(tracking, workspace)} {failed}: {reason}"
    # MLFLOW_TRACKING_URI may contain a password.
    return re.sub(r"://[^/@\s]+@", "://", text)


@contextmanager
def telling_failures(
    tracking: TrackingSection,
    workspace: Workspace,
    failed: str = "could not be brought up to date",
    hint: str = "",
) -> Iterator[None]:
    """Turn what MLflow raises inside the `with` into a PipelineError: `unreachable`, and a hint after it."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(f"{unreachable(error, tracking, workspace, failed)}{hint}") from error


def _reason(error: BaseException) -> str:
    first = _first(error)
    if isinstance(first, ssl.SSLCertVerificationError):
        return (
            f"Its certificate is not trusted ({first.verify_message}). If it should be, set "
            "MLFLOW_TRACKING_SERVER_CERT_PATH to a file with the certificate."
        )
    if isinstance(first, ConnectionError | TimeoutError | socket.gaierror | ssl.SSLError):
        return f"{first.strerror or first}."
    text = str(error)
    if _NOT_JSON in text:
        return "It answered with a page instead of data. Is this the address of MLflow, or of a login page?"
    if found := re.search(_STATUS, text, re.DOTALL):
        status, body = int(found[1] or found[3] or found[4]), found[2] or ""
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        # MLflow answers with sentences, proxies with pages.
        said = "" if "<" in body else f" {body.strip()}"
        return f"HTTP status {f'{status} {phrase}'.strip()}.{said} {_REMEDIES.get(status, '')}"
    return text


def _first(error: BaseException) -> BaseException:
    """Return the exception that `error` began with: what the network said, such as "Connection refused".

    Libraries wrap it in their own exceptions, as the cause, or only as an argument.
    """
    wrapped = (argument for argument in error.args if isinstance(argument, BaseException))
    following = error.__cause__ or error.__context__ or next(wrapped, None)
    return _first(following) if following else error
