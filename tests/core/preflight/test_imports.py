"""The API imports this room: it must come without the engine's libraries."""

from __future__ import annotations

import subprocess
import sys

MODULES = (
    "core.preflight.source",
    "core.preflight.checks",
    "core.preflight.resources",
    "core.preflight.roots",
    "core.preflight.loader_table",
    "core.preflight.rules",
    "core.preflight.targets",
    "core.calibration.builtin",
    "core.calibration.texts",
    "core.report",
)


def test_preflight_is_standard_library_only():
    """A fresh interpreter that has imported all of it knows nothing outside the standard library and `core`."""
    program = (
        f"import sys\nbefore = set(sys.modules)\nimport {', '.join(MODULES)}\n"
        "print(*sorted({n.split('.')[0] for n in set(sys.modules) - before} - sys.stdlib_module_names - {'core'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
