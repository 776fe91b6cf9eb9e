import sys

import pytest

from pipeline.console import say, track


def test_off_a_terminal_progress_is_a_line_for_each_tenth(capsys):
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


def test_at_a_terminal_progress_is_a_bar_with_the_note(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with track(2, "Working [on] it") as progress:
        progress.advance(2, note="loss [0.1]")
    out = capsys.readouterr().out
    assert "Working [on] it" in out
    assert "100%" in out
    assert "loss [0.1]" in out


@pytest.mark.parametrize("text", ["[bold]not markup[/bold]", "x" * 500])
def test_text_is_said_as_it_is(capsys, text):
    say(text)
    assert capsys.readouterr().out == text + "\n"
