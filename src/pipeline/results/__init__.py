"""What came of trainings: reports and figures of sweeps, and runs found, compared and adopted."""
