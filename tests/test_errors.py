import os
import pwd
import py_compile
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from servers import PATIENCE


def ends(body, imports="", **environment):
    """Run `body` inside `exit_on_error()` in a new process; return its exit code and standard error."""
    code = (
        "import errno, os, signal\nfrom pipeline.errors import PipelineError, exit_on_error\n"
        f"{imports}\nwith exit_on_error():\n"
        f"    try:\n        {body}\n    finally:\n        print('cleaned up')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=PATIENCE,
    )
    assert done.stdout == "cleaned up\n"
    return done.returncode, done.stderr


def test_a_failure_that_the_user_can_fix_is_one_sentence():
    assert ends("raise PipelineError('Fix it.')") == (1, "error: Fix it.\n")


def test_with_hydra_full_error_it_is_a_traceback():
    code, said = ends("raise PipelineError('Fix it.')", HYDRA_FULL_ERROR="1")
    assert code == 1
    assert "Traceback" in said


@pytest.mark.parametrize(
    ("number", "says"),
    [
        ("ENOSPC", "The disk is full at x:"),
        ("EFBIG", "larger than the file system or `ulimit -f` allows at x:"),
        ("EROFS", "read-only at x"),
        ("EACCES", "not permitted at x"),
    ],
)
def test_a_disk_that_cannot_be_written_to_is_one_sentence_that_names_the_place(number, says):
    code, said = ends(f"raise OSError(errno.{number}, 'no', 'x')")
    assert code == 1
    assert says in said
    assert said.count("\n") == 1


def test_an_error_of_dvc_is_its_own_sentence():
    code, said = ends("raise ConfigError('bad\\n line')", imports="from dvc.config import ConfigError")
    assert (code, said) == (1, "error: DVC: config file error: bad line.\n")


@pytest.mark.parametrize(
    "error",
    ["MemoryError()", "ValueError('OOM when allocating tensor')", "RuntimeError('RESOURCE_EXHAUSTED: Out')"],
)
def test_a_lack_of_memory_is_one_sentence_with_the_settings_that_reduce_it(error):
    code, said = ends(f"raise {error}")
    assert (code, said.count("\n")) == (1, 1)
    assert "not enough memory: use a smaller model" in said


def test_a_compiled_module_that_a_full_disk_left_incomplete_is_one_sentence(tmp_path):
    (tmp_path / "half.py").write_text("names = list(range(100))")
    compiled = Path(py_compile.compile(str(tmp_path / "half.py")))
    compiled.write_bytes(compiled.read_bytes()[:40])
    code, said = ends("import half", imports=f"import sys\nsys.path.insert(0, {str(tmp_path)!r})")
    assert (code, said.count("\n")) == (1, 1)
    assert "remove the folders __pycache__ below" in said


@pytest.mark.parametrize("body", ["1 / 0", "raise OSError(errno.EBADF, 'odd')"])
def test_a_bug_in_the_program_is_a_traceback(body):
    code, said = ends(body)
    assert code == 1
    assert "Traceback" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_after_cleaning_up_without_a_traceback(number, code):
    found, said = ends(f"os.kill(os.getpid(), {number:d}); signal.pause()")
    assert found == code
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("raise ValueError('not built: KeyboardInterrupt: ')", 130),
        ("os.kill(os.getpid(), 15); signal.pause()\n    except SystemExit: raise ValueError", 143),
    ],
)
def test_a_signal_that_a_library_reports_as_its_own_error_ends_it_without_a_traceback(body, code):
    found, said = ends(body)
    assert found == code
    assert "Traceback" not in said


@pytest.mark.parametrize("interrupted", ["typer", "pipeline.cli.models"])
def test_ctrl_c_while_the_command_line_is_imported_gives_no_traceback(interrupted):
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {interrupted!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from pipeline.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_a_signal_that_comes_twice_at_once_does_not_interrupt_the_end():
    """When a parent is killed, the kernel sends the signal once for each of its threads."""
    ending = "os.kill(os.getpid(), 15); os.write(2, b'ended')"
    imports = f"from contextlib import ExitStack\nstack = ExitStack()\nstack.callback(exec, {ending!r})"
    assert ends("with stack: os.kill(os.getpid(), 15); signal.pause()", imports) == (143, "ended")


@pytest.mark.parametrize(
    ("imports", "body"),
    [
        ("import shutil", "raise shutil.Error([('a', 'b', '[Errno 28] No space left on device')])"),
        ("import sqlite3", "raise sqlite3.OperationalError('database or disk is full')"),
        ("", "raise OSError('16384 requested and 8064 written')"),
        ("", "raise ValueError('lost') from OSError(errno.ENOSPC, 'no', 'x')"),
    ],
)
def test_a_full_disk_is_one_sentence_whichever_library_reports_it(imports, body):
    code, said = ends(body, imports=imports)
    assert code == 1
    assert said.startswith("error: The disk is full")
    assert said.count("\n") == 1


def test_the_file_of_another_user_is_named_with_its_owner(tmp_path):
    (tmp_path / "lock").touch()
    os.chown(tmp_path / "lock", 1, 1)
    code, said = ends(f"raise PermissionError(errno.EACCES, 'no', {str(tmp_path / 'lock')!r})")
    assert code == 1
    assert f"{tmp_path / 'lock'} belongs to {pwd.getpwuid(1).pw_name}" in said


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        (">&-", 0, ""),
        ("<&- >&-", 0, ""),
        (">/dev/full", 1, "error: The disk is full: nothing was left half-written"),
    ],
)
def test_an_output_that_is_closed_or_on_a_full_disk_is_no_traceback(streams, code, said):
    body = (
        "import subprocess, sys\nfrom pipeline.errors import exit_on_error\nwith exit_on_error():\n"
        "    print('text', sys.stdout.isatty(), sys.stdin.read(), flush=True)\n"
        "    subprocess.run([sys.executable, '-c', 'print(1)'], check=True)\n"
    )
    command = ["bash", "-c", f'exec "$0" -c "$1" {streams}', sys.executable, body]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr.partition(". Fix that")[0]) == (code, said)


# Runs a module, and sends it SIGINT when it begins to import a library, which takes most of its start.
INTERRUPTED = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name in ("numpy", "pydantic", "typer", "yaml"):
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "command",
    [("pipeline", "seed=1"), ("pipeline.stages", "compose"), ("pipeline.trials", "repository")],
    ids=" ".join,
)
def test_a_process_that_is_interrupted_while_it_starts_says_so_in_a_word(tmp_path, command):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")
