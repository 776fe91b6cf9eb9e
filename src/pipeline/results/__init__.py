"""Results: what sweeps and runs came to; found, ranked, drawn, compared and adopted."""
