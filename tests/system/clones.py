"""Clones of the repository in which tests run real commands, the same on every machine."""

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from pipeline.artifacts.workspace import Workspace
from servers import PATIENCE


class Clone:
    """A clone of the working tree, and methods that run commands in it."""

    def __init__(self, root: Path, environment: dict[str, str]):
        self.root, self.workspace = root, Workspace(root)
        self.environment = environment | {"PYTHONPATH": "src"}

    def run(self, *command, code=0, **environment) -> str:
        """Run a command and return its output; its exit code must be `code` (None: any but 0)."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        shown = f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        assert done.returncode == code if code is not None else done.returncode, shown
        return done.stdout

    def repro(self, *arguments, **expected) -> str:
        return self.run("dvc", "repro", *arguments, **expected)

    def pipeline(self, *arguments, **expected) -> str:
        return self.run("python", "-m", "pipeline", *arguments, **expected)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
        file.write_text(text.replace(old, new))

    def git(self, *arguments) -> str:
        return self.run("git", *arguments)

    def changes(self) -> str:
        return self.git("status", "--porcelain", "--untracked-files=all")

    def files(self) -> set[str]:
        """Return all files except the internal ones of Python, git and DVC."""
        hidden = re.compile(r"(^|/)(__pycache__|\.git|\.dvc/(tmp|cache))/")
        paths = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
        return {path for path in paths if not hidden.search(path)}

    def digests(self) -> dict[str, str]:
        """Return DVC's MD5 of each output, by path."""
        import yaml

        stages = yaml.safe_load(self.workspace.dvc_lock.read_text())["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}

    def _client(self):
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # Otherwise the database stays open, and a test that deletes it would still see the old one.
        os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.root / 'mlflow.db'}")

    def curve(self, run, metric: str):
        """Return the values of a metric of a run, by step."""
        return sorted(
            self._client().get_metric_history(run.info.run_id, metric), key=lambda point: point.step
        )

    def mlflow_runs(self):
        """Return the runs in the clone's own store, oldest first."""
        client = self._client()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return client.search_runs(experiments, order_by=["attributes.start_time"])

    def processes(self) -> list[int]:
        """Return the processes that run anywhere below the clone."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                number, place = int(entry.name), str((entry / "cwd").readlink())
                if Path(place).is_relative_to(self.root):
                    found.append(number)
        return found


class Running:
    """A running command in its own process group, started as by a terminal."""

    def __init__(self, clone: Clone, *command: str):
        self._log = clone.root.parent / f"{clone.root.name}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=clone.root,
                env=clone.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # As in a terminal, even if these tests run under nohup.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        until(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, self.output

    def end(self) -> int:
        """Wait for the end of the command and return its exit code."""
        return self.process.wait(PATIENCE)

    def kill_all(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def until(condition) -> None:
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.05)


def executed(output: str) -> list[str]:
    """Return the stages that DVC executed, according to its output."""
    return re.findall(r"^Running stage '(\w+)':", output, re.MULTILINE)


def clone_of(template: Clone, root: Path) -> Clone:
    template.git("clone", "--quiet", ".", str(root))
    return Clone(root, template.environment)


def smoke_clone_of(template: Clone, root: Path) -> Clone:
    """Make a fresh clone whose conf/ selects the experiment `smoke`, committed."""
    clone = clone_of(template, root)
    clone.edit("conf/config.yaml", "experiment: null", "experiment: smoke")
    clone.git("commit", "--quiet", "--all", "--message=Smoke")
    return clone
