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
