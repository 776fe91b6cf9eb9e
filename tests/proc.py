"""What the kernel says of other processes."""

from pathlib import Path


def is_running(number: int) -> bool:
    """Whether a process can still do something: it has not ended, be it waited for or not."""
    try:
        return "VmSize" in Path(f"/proc/{number}/status").read_text()
    except OSError:  # It went while the file was read.
        return False
