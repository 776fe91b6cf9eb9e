"""The process of a trial: `python -m pipeline.trials REPOSITORY`, in the trial's workspace."""

import signal
import sys

from pipeline.errors import exit_on_error
from pipeline.processes.system import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    # A process that a shell script starts with `&` ignores SIGINT by default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with exit_on_error():
        # Most of the time until the trial starts: Ctrl-C can come here, too.
        from pipeline.trials.trial import main

        sys.exit(main(sys.argv[1]))
