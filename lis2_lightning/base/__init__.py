"""What any room may use: files, locks, signals, labelled pixels."""
