from dataclasses import replace

from made_up import sweep, trial

from pipeline.results.live import watching


def test_a_failed_trial_is_reported_on_one_line_with_the_best_result(capsys):
    reports = [
        sweep([trial(rate="0.1"), trial(values={}, state="waiting", rate="9")]),
        sweep([trial(rate="0.1"), trial(values={}, state="failed", error="There is no card.", rate="9")]),
    ]
    with watching(lambda: reports.pop(0) if len(reports) > 1 else reports[0], workers=1):
        pass
    assert "2 of 2: rate=9: failed: There is no card; best 50.00 %\n" in capsys.readouterr().out


def test_a_failed_trial_does_not_count_in_the_time_left_and_its_long_error_is_shortened(capsys):
    failed = trial(values={}, state="failed", error="too long " * 50, rate="9")
    waiting = trial(values={}, state="waiting", rate="8")
    reports = [
        sweep([replace(failed, state="waiting"), waiting]),
        sweep([replace(failed, seconds=1.0), waiting]),
    ]
    with watching(lambda: reports.pop(0) if len(reports) > 1 else reports[0], workers=1):
        pass
    out = capsys.readouterr().out
    assert "left" not in out
    assert "failed: too long" in out
    assert "long …" in out
    assert all(len(line) < 140 for line in out.splitlines())
