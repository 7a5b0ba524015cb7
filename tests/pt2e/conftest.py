"""Without torchao there is nothing to try here; `make test-pt2e` brings it, and finding no test fails that run."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torchao") else ["test_*.py"]
