"""The command line: words become an answer and an exit code."""
