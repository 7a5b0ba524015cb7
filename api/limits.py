"""Makes room for as many open connections as the settings promise: most systems start programs with 1,024 files."""

from __future__ import annotations

import resource

import structlog

# Database, broker, files that are being sent, ordinary requests.
BESIDE_STREAMS = 512


def raise_open_files(streams: int) -> None:
    """Raises the soft limit of open files up to what is needed, never down; warns where the hard limit is too low."""
    needed = streams + BESIDE_STREAMS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        structlog.get_logger("bitmill.api").warning("open_files_limited", needed=needed, allowed=allowed)
