"""How long a tracker may take for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds, unless the name says otherwise.

    Args:
        call_s: One call to a service; one that takes longer ends the tracker.
        retry_s: How long something is tried again before the tracker is off.
        backoff_s: The pause after the first failure; each further one is twice as long.
        longest_pause_s: The longest pause.
        stall_s: How long the end of a run waits while nothing arrives.
        close_s: How long the end of a run waits in all.
        linger_s: How long the tracker's process goes on by itself after that.
        poll_s: How often the journal is looked at.
        upload_bytes_per_s: The slowest upload of a file that is waited for.
    """

    call_s: float = 30.0
    retry_s: float = 300.0
    backoff_s: float = 0.5
    longest_pause_s: float = 30.0
    stall_s: float = 3.0
    close_s: float = 60.0
    linger_s: float = 60.0
    poll_s: float = 0.1
    upload_bytes_per_s: float = 5e6
