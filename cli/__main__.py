"""`python -m cli`: the same as `bitmill`, for callers that know their interpreter and not their PATH."""

from __future__ import annotations

from cli.main import main

if __name__ == "__main__":
    main()
