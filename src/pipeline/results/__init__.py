"""Results: sweeps and runs, found by name, ranked, drawn, compared and adopted."""
