"""The folder of compiled graphs: torch runs what it finds there, so nobody else may write to it."""

import contextlib
import os
import stat
from pathlib import Path

from harness.step import NotCompiled


def guard() -> None:
    """Make the folder where there is none, for this user alone, and have torch keep its compiled headers there too.

    NotCompiled where others can write to it, or have made it. To be called before anything is compiled.
    """
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        about = folder.stat()
        if about.st_uid != os.geteuid() or about.st_mode & stat.S_IWOTH:
            raise NotCompiled(f"{folder}: others can write there, and what lies there is run; remove it")
        if about.st_mode & stat.S_IWGRP:
            folder.chmod(0o700)
    except OSError as error:
        raise NotCompiled(str(error)) from None
    from torch._inductor import codecache  # costs a second, and few trials compile

    # It would be /tmp/torchinductor_<user>, whoever has made that.
    codecache._HEADER_DIR = str(folder / "precompiled_headers")
    codecache._HEADER_LOCK_DIR = str(folder / "precompiled_headers" / "locks")
