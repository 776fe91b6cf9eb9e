import os
import pty
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pipeline import console
from pipeline.cli.verbs import app
from pipeline.console import Every, printable, say, say_markdown, track, track_epochs
from servers import PATIENCE


def test_without_a_terminal_progress_is_a_line_for_each_tenth(capsys):
    with track(1000, "Working") as progress:
        for step in range(1000):
            progress.advance(1, note=f"step {step + 1}")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0] == "Working 100 of 1,000: step 100"
    assert lines[-1] == "Working 1,000 of 1,000: step 1000"


def test_progress_without_a_total_is_quiet_when_quick(capsys):
    with track(None, "Working") as progress:
        for _ in range(1000):
            progress.advance(1)
    assert capsys.readouterr().out == ""


def test_in_a_terminal_progress_is_a_bar_with_the_note(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with track(2, "Working [on] it") as progress:
        progress.advance(2, note="loss [0.1]")
    out = capsys.readouterr().out
    assert "Working [on] it" in out
    assert "100%" in out
    assert "loss [0.1]" in out


def test_no_description_is_cut_in_the_list_of_commands(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "  predict    Predict what pictures show.\n" in shown
    assert "...\n" not in shown.partition("Commands:")[2]


def test_a_chart_is_text_in_a_log_and_left_out_at_a_terminal(capsys, monkeypatch):
    chart = "## Curves\n\nBlue is old.\n\n```mermaid\nxychart-beta\n    line [1, 2]\n```\n"
    text = f"# Report\n\n## Data\n\nThe same.\n\n{chart}\n## Confusions\n\n`code`\n"
    say_markdown(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say_markdown(text)
    shown = capsys.readouterr().out
    assert [word for word in ("Report", "Data", "same", "Confusions", "code") if word not in shown] == []
    assert [word for word in ("Curves", "Blue", "mermaid", "line") if word in shown] == []


@pytest.mark.parametrize("text", ["[bold]not markup[/bold]", "x" * 500])
def test_text_is_printed_unchanged(capsys, text):
    say(text)
    assert capsys.readouterr().out == text + "\n"


def test_without_a_terminal_an_epoch_is_one_line_however_long_it_takes(capsys):
    with track_epochs(2, steps=100) as progress:
        for epoch in (1, 2):
            for _ in range(100):
                progress.advance(1)
            progress.end_epoch(epoch, "loss 0.5")
    assert capsys.readouterr().out == "Epoch 1 of 2: loss 0.5\nEpoch 2 of 2: loss 0.5\n"


def test_in_a_terminal_the_bar_moves_within_an_epoch(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with track_epochs(4, steps=10) as progress:
        progress.end_epoch(1, "loss 0.5")
        progress.advance(5)
    out = capsys.readouterr().out
    assert "Epoch 2 of 4" in out
    assert "38%" in out  # one and a half of four
    assert "loss 0.5" in out


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_after_the_reader_is_gone_is_discarded(stream):
    code = (
        "import sys; from pipeline.console import outlive_readers; outlive_readers(); outlive_readers()\n"
        f"for _ in range(10000): print('x' * 100, file=sys.{stream})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], **{stream: subprocess.PIPE}, text=True)
    getattr(process, stream).readline()
    getattr(process, stream).close()
    assert process.wait(PATIENCE) == 0


def test_characters_that_the_encoding_lacks_are_replaced():
    code = "from pipeline.console import outlive_readers, say; outlive_readers(); say('97 % ± 1')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "97 % ? 1\n", "")


def test_a_timer_is_due_after_its_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    every, never = Every(5.0), Every(None)
    assert not every.due
    now[0] += 5
    assert every.due
    assert not never.due
    every.restart()
    assert not every.due


@pytest.mark.parametrize("bar", ["track(10, 'Reading')", "track_epochs(2, 5)"])
def test_redirected_errors_reach_their_file_while_a_bar_is_shown(tmp_path, bar):
    code = (
        "import sys; from pipeline.console import track, track_epochs\n"
        f"with {bar} as progress: progress.advance(1); print('a warning', file=sys.stderr)"
    )
    ours, theirs = pty.openpty()
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=log, check=True)
    os.close(theirs)
    assert os.read(ours, 4096)
    os.close(ours)
    assert (tmp_path / "log").read_text() == "a warning\n"


def test_names_that_would_look_alike_or_control_the_terminal_are_quoted():
    names = ["a b", "a ", " a", "a\nb", "a\u2028b", "\u202ea", "é"]
    assert [printable(name) for name in names] == [
        *("a b", "'a '", "' a'", "'a\\nb'", "'a\\u2028b'", "'\\u202ea'", "é"),
    ]
