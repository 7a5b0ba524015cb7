"""The API's process carries no engine library."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys
import api.app
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_importing_the_app_loads_no_engine_library():
    """In a fresh interpreter: a re-export somewhere would defeat the import rules silently."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    loaded = set(json.loads(answer.stdout))
    assert "fastapi" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "safetensors", "numpy", "numba", "tokenizers"})
