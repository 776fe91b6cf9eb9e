"""How much memory adding and fetching data takes, measured in a separate process."""

import subprocess
import sys

CHILD = """
import sys
from pathlib import Path
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose
from pipeline.data.adding.add import add_data
from pipeline.data.adding.options import AddOptions
from pipeline.stages import fetch
from PIL import Image
def peak():
    return max(
        int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")
    )
before, root = peak(), Path(sys.argv[1])
list(add_data(AddOptions(sys.argv[2], name="photos", image_size=sys.argv[3]), Workspace(root), root))
fetch.run(compose(root / "conf", ["data=photos"]), Workspace(root))
print(before, peak())
"""


def peaks_of_adding(clone, path, image_size):
    """Return the memory in megabytes before and after the data were added and fetched."""
    (clone.workspace.root / "conf" / "data" / "photos.yaml").unlink(missing_ok=True)
    command = [sys.executable, "-c", CHILD, str(clone.workspace.root), str(path), image_size]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()[-2:]]
