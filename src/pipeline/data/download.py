"""Download files within the limits set in conf/."""

import http.client
import string
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, TYPE_CHECKING

from pipeline.console import say, track
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config.schema import DataSection


def download(url: str, data: "DataSection") -> IO[bytes]:
    """Return a download in a file without a name, at its start: nothing is left over however this ends.

    Of the limits, `timeout` applies to connecting and to each read, `deadline` to the whole download,
    `retries` to temporary failures (5xx, 429, timeouts, lost connections), and `max_bytes` to the body.

    Raises:
        PipelineError: If the download fails; the message has the URL and the reason of the last attempt.
    """
    attempt, end = 0, time.monotonic() + data.deadline
    while True:
        try:
            return _in_time(url, data, end)
        except urllib.error.HTTPError as error:
            error.close()
            reason, is_temporary = f"HTTP {error.code}", error.code == 429 or error.code >= 500
        except (OSError, ValueError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            is_temporary = isinstance(cause, TimeoutError | ConnectionError | http.client.HTTPException)
            reason = getattr(cause, "strerror", None) or str(cause) or repr(cause)
            if isinstance(cause, TimeoutError):
                reason = f"no answer for {data.timeout:g} s"
        if not is_temporary or attempt == data.retries:
            raise PipelineError(f"{url}: {reason}")
        say(f"{url}: {reason}; trying again in {2**attempt} s")
        pause(2**attempt)
        attempt += 1


def pause(seconds: float) -> None:
    """Wait between two attempts."""
    time.sleep(seconds)


def _in_time(url: str, data: "DataSection", end: float) -> IO[bytes]:
    """Download in a thread that is abandoned at `end`, since a server may send single bytes for ever."""
    outcome: list[IO[bytes] | BaseException] = []
    given_up = threading.Event()

    def work() -> None:
        try:
            outcome.append(_download(url, data, given_up))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(max(0.0, end - time.monotonic()))
    if not outcome:
        given_up.set()
        # It ends, and so does its progress bar, with the next byte that arrives.
        thread.join(data.timeout)
        raise PipelineError(f"{url}: not complete after {data.deadline:g} s (data.deadline)")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _download(url: str, data: "DataSection", given_up: threading.Event) -> IO[bytes]:
    # As a browser does: letters that are not ASCII, and spaces, may not be sent as they are.
    quoted = urllib.parse.quote(url, safe=string.punctuation)
    # The schema allows only http and https.
    with urllib.request.urlopen(quoted, timeout=data.timeout) as response:  # noqa: S310
        length = response.length
        if length and length > data.max_bytes:
            raise PipelineError(f"{url} has {length} bytes, more than data.max_bytes, {data.max_bytes}")
        file = tempfile.TemporaryFile()  # noqa: SIM115
        with track(length, f"Downloading {url}") as progress:
            while chunk := response.read1(2**18):
                file.write(chunk)
                progress.advance(len(chunk))
                if given_up.is_set():
                    raise TimeoutError
                if file.tell() > data.max_bytes:
                    raise PipelineError(f"{url} has more than data.max_bytes, {data.max_bytes} bytes")
    if length and file.tell() < length:
        raise ConnectionError(f"the connection was lost after {file.tell()} of {length} bytes")
    file.seek(0)
    return file
