"""Takes over kernels that were compiled when the package was installed, where this process looks in another folder.

Numba looks beside the sources only if it may write there and no variable names a folder of its own. An image's
installation cannot be written to, and a worker's jobs keep their kernels in the worker's cache folder: without this
they would compile once more what is compiled already.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

COMPILED: Final = ("*.nbi", "*.nbc")
"""Numba's files in the order in which they may be read while another process writes: an index, and what it names."""


def take_over_installed(installed: Path, here: Path) -> None:
    """Fills a folder that holds no kernels yet with the installed ones, all at once or not at all.

    Whatever stands in the way, a folder that cannot be written or another process that was faster, Numba finds out
    for itself and compiles.
    """
    if here == installed or any(here.glob(COMPILED[0])):
        return
    try:
        with tempfile.TemporaryDirectory(dir=here.parent, prefix=f"{here.name}.", ignore_cleanup_errors=True) as folder:
            filled = Path(folder, here.name)
            filled.mkdir()
            for pattern in COMPILED:
                for file in installed.glob(pattern):
                    shutil.copyfile(file, filled / file.name)
            filled.rename(here)  # takes the place of an empty folder only
    except OSError:
        return
