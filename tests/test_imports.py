"""Commands and stages import no library that they don't need, because some take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

HEAVY = {"tensorflow", "keras", "mlflow", "sklearn", "matplotlib", "dvc", "scipy", "pandas"}


def heavy_in(*arguments):
    """Return the heavy packages that `python ARGUMENTS` imports, from `-X importtime`."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert "encodings" in modules
    return HEAVY & {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    "arguments",
    [["-c", "import pipeline"], ["-m", "pipeline", "--help"], ["-m", "pipeline", "--cfg", "job"]],
    ids=" ".join,
)
def test_the_package_and_its_help_import_no_large_library(arguments):
    assert heavy_in(*arguments) == set()


def test_fetch_and_preprocess_import_neither_tensorflow_nor_mlflow():
    code = "from pipeline.stages import fetch, preprocess, __main__"
    assert heavy_in("-c", code) <= {"matplotlib"}


def test_train_imports_keras_without_its_optional_imports_which_still_work_later():
    code = (
        "import sys; from pipeline.environment import import_keras; import_keras(); "
        "import pipeline.stages.train; print(*sys.modules); "
        "import sklearn.metrics, matplotlib.pyplot, pandas, jax"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "keras" in modules
    assert not {"sklearn", "matplotlib", "pandas", "jax"} & modules
