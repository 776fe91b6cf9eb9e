"""Settings of a machine, a shell or a home directory don't change any artifact."""

import json
import os
import subprocess

import pytest
from clones import executed, smoke_clone_of

HOSTILE = {
    "CUDA_VISIBLE_DEVICES": "0",
    "KERAS_BACKEND": "jax",
    "KERAS_MAX_EPOCHS": "1",
    "LANG": "C",
    "LC_ALL": "tr_TR.ISO-8859-9",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "OMP_NUM_THREADS": "7",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_NUM_THREADS": "7",
    "PYTHONHASHSEED": "random",
    "PYTHONIOENCODING": "ascii",
    "SKLEARN_ASSUME_FINITE": "True",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTRAOP_THREADS": "7",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
    "TZ": "Pacific/Kiritimati",
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
}
REPRODUCIBLE = {
    "models/model.keras",
    "models/model.onnx",
    "models/history.csv",
    "reports/metrics.json",
    "reports/predictions.csv",
    "reports/per_class.csv",
    "reports/label_issues.csv",
    "reports/model_card.md",
    "reports/probabilities.npy",
    "reports/figures",
}
KERAS = {"backend": "jax", "floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first"}
MATPLOTLIBRC = "font.family: monospace\nfigure.dpi: 300\nimage.cmap: jet\nsavefig.facecolor: red\n"
SITECUSTOMIZE = """
import locale, os
os.environ["TF_DETERMINISTIC_OPS"] = "1"
os.environ["KERAS_BACKEND"] = "torch"
locale.setlocale(locale.LC_ALL, "C")
"""


@pytest.fixture
def hostile(template, tmp_path):
    """A clone in an environment with every setting that is known to change results elsewhere."""
    home = tmp_path / "home"
    for path, text in {
        home / ".keras" / "keras.json": json.dumps(KERAS),
        home / ".config" / "matplotlib" / "matplotlibrc": MATPLOTLIBRC,
        home / "python" / "sitecustomize.py": SITECUSTOMIZE,
        home / ".gitconfig": "[user]\nname = Test\nemail = test@example.org\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    clone = smoke_clone_of(template, tmp_path / "hostile")
    (clone.root / "matplotlibrc").write_text(MATPLOTLIBRC)
    clone.environment |= HOSTILE | {"HOME": str(home), "PYTHONPATH": f"{home / 'python'}{os.pathsep}src"}
    return clone


def test_a_clone_with_other_paths_and_environment_variables_makes_the_same_bytes(reproduced, hostile):
    assert executed(hostile.repro()) == ["compose", "fetch", "preprocess", "train", "evaluate"]
    assert reproduced.digests().keys() >= REPRODUCIBLE
    assert hostile.digests() == reproduced.digests()
    for path in ("dvc.lock", "params.yaml"):
        assert (hostile.root / path).read_bytes() == (reproduced.root / path).read_bytes()


@pytest.mark.slow
def test_the_reused_workers_of_a_sweep_make_the_same_bytes(reproduced, hostile):
    hostile.pipeline("-m", "seed=0")
    assert executed(hostile.repro()) == ["compose"]
    assert hostile.digests() == reproduced.digests()


@pytest.mark.slow
def test_a_user_without_a_name_and_a_home_runs_the_pipeline(smoke):
    nobody = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if subprocess.run([*nobody, "true"], capture_output=True).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("user namespaces are not available")
        pytest.skip("needs user namespaces")
    unnamed = ["env", "--unset=HOME", "--unset=USER", "--unset=LOGNAME"]
    output = smoke.run(*nobody, *unnamed, "python", "-m", "pipeline", "seed=3")
    assert "Traceback" not in output
    assert "weights " in output.splitlines()[-1]


def test_when_the_output_is_closed_the_work_continues(smoke):
    output = smoke.run("bash", "-o", "pipefail", "-c", "python -m pipeline | head -1")
    assert len(output.splitlines()) == 1, output
    assert "Traceback" not in output
