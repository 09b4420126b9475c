"""What surrounds Lightning's loops: resuming, checks, the run's folder, its results."""
