"""Ask the kernel about other processes."""

from pathlib import Path


def is_running(number: int) -> bool:
    """Return whether a process is still running: it has not ended and is not a zombie."""
    try:
        return "VmSize" in Path(f"/proc/{number}/status").read_text()
    except OSError:  # It ended while the file was read.
        return False
