"""What a stage's process leaves behind besides its outputs: no core dump, and no file that others may read.

A core dump would put sensitive images and keys on the disk. The limit stops dumps into a file; a system that pipes them
to a program of its own ignores the limit, and gets a dump without any memory in it. Both hold for programs that are
started from here, too. The process is not made undumpable (``PR_SET_DUMPABLE``): to everyone but root that also hides
how much memory it takes, which Snakemake's benchmarks measure, and whoever runs it may read the key's file anyway.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

FILTER = Path("/proc/self/coredump_filter")  # which kinds of memory a dump holds, on Linux
OWNER_ONLY = 0o077


def confine() -> None:
    """From here on no core dump holds memory, and new files and folders are their owner's alone.

    What may leave is opened to others where it is written.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    with contextlib.suppress(OSError):  # another system than Linux has none
        FILTER.write_text("0")
    os.umask(OWNER_ONLY)
