"""What every room may use: files, locks, signals, labelled pixels."""
