"""What made a row: commit and versions."""

import contextlib
import platform
import subprocess
from importlib.metadata import version

from harness import HERE

LIBRARIES = ("torch", "ray", "numpy")


def versions() -> dict[str, str]:
    """Of Python and of the libraries that numbers may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def provenance() -> dict[str, str]:
    """Commit of this program's checkout (empty outside git, '+' where it has changes) and versions, for every row."""
    git = ["git", "-C", str(HERE.parent)]
    commit = ""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        commit += "+" if changes.strip() else ""
    return {"commit": commit, "versions": ", ".join(f"{name} {number}" for name, number in versions().items())}
