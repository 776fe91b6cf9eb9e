"""Downloads, within the limits that conf/ sets."""

import http.client
import tempfile
import time
import urllib.error
import urllib.request
from typing import IO, TYPE_CHECKING

from pipeline.console import say, track
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection


def download(url: str, data: "DataSection") -> IO[bytes]:
    """Download into a file that has no name, so that nothing is left over however this ends.

    Args:
        url: http or https.
        data: `timeout` is for connecting and for each read; `retries` is for faults that may pass
            (5xx, 429, time-outs, lost connections); `max_bytes` caps the body.

    Returns:
        The file, at its start.

    Raises:
        PipelineError: the URL, and what went wrong at the last attempt.
    """
    attempt = 0
    while True:
        try:
            return _download(url, data)
        except urllib.error.HTTPError as error:
            error.close()
            reason, passing = f"HTTP {error.code}", error.code == 429 or error.code >= 500
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            passing = isinstance(cause, TimeoutError | ConnectionError | http.client.HTTPException)
            reason = getattr(cause, "strerror", None) or str(cause) or repr(cause)
            if isinstance(cause, TimeoutError):
                reason = f"no answer for {data.timeout:g} s"
        if not passing or attempt == data.retries:
            raise PipelineError(f"{url}: {reason}")
        say(f"{url}: {reason}; trying again in {2**attempt} s")
        pause(2**attempt)
        attempt += 1


def pause(seconds: float) -> None:
    """Wait between two attempts."""
    time.sleep(seconds)


def _download(url: str, data: "DataSection") -> IO[bytes]:
    # The schema admits only http and https.
    with urllib.request.urlopen(url, timeout=data.timeout) as response:  # noqa: S310
        length = int(response.headers.get("Content-Length") or 0) or None
        if length and length > data.max_bytes:
            raise PipelineError(f"{url} is {length} bytes, more than data.max_bytes, {data.max_bytes}")
        file = tempfile.TemporaryFile()  # noqa: SIM115
        with track(length, f"Downloading {url}") as progress:
            while chunk := response.read1(2**18):
                file.write(chunk)
                progress.advance(len(chunk))
                if file.tell() > data.max_bytes:
                    raise PipelineError(f"{url} is more than data.max_bytes, {data.max_bytes} bytes")
    if length and file.tell() < length:
        raise ConnectionError(f"the connection was lost after {file.tell()} of {length} bytes")
    file.seek(0)
    return file
