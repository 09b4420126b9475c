"""Many trainers: comparisons of whole runs."""
