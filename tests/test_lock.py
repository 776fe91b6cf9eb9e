"""make installs the same packages with every Python that pyproject.toml allows."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def locked(name):
    """Return the lines of each package in a lock file."""
    return re.split(r"\n(?=\S)", (ROOT / name).read_text(encoding="utf-8").strip())


def versions(name):
    return dict(package.split(" ", 1)[0].split("==") for package in locked(name))


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_all_python_versions_get_the_tested_version_of_a_package(name):
    counts = Counter(package.split("==")[0] for package in locked(name))

    assert [package for package, times in counts.items() if times > 1] == []
    assert not [
        package
        for package in locked(name)
        if "python_" in package.splitlines()[0].replace("platform_python_", "")
    ]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_packages_are_locked_by_hashes_and_without_addresses(name):
    for package in locked(name):
        assert re.match(
            r"[a-z0-9._-]+(\[[a-z0-9,]+\])?==\S+( ; .+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\\n|$))+$",
            package,
        )


def test_the_tests_run_with_the_packages_of_the_pipeline():
    assert versions("requirements.lock").items() <= versions("requirements-dev.lock").items()


def test_an_environment_that_was_copied_with_a_clone_is_rebuilt(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("requirements.lock", "requirements-dev.lock"):
        (tmp_path / name).touch()
    python = Path(sys.base_prefix, "bin", "python3")
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    (tmp_path / ".venv/made-for").write_text("/another/place\n")
    path = f"{python.parent}:/usr/bin:/bin"

    # It fails at the installation, because this is not a complete clone.
    made = subprocess.run(
        ["make", ".venv/runtime"], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True
    )

    assert (tmp_path / ".venv/made-for").read_text() == f"{tmp_path}\n", made.stderr
