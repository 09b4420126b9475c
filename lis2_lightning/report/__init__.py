"""What a run looks like: its pictures and its page."""
