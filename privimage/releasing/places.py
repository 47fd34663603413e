"""Does a text name a place on a machine? None leaves with a release, so names that look like one are refused early."""

from __future__ import annotations

import re

KINDS = "zip|tar|gz|tgz|bz2|xz|npz|npy|h5|hdf5|csv|tsv|parquet|json|yaml|png|jpe?g|tiff?|pt|pth|ckpt|safetensors"
PLACE = re.compile(
    r"(?<![\w<:/.])/[\w.-]+/[\w./-]*"  # /data/scans, in the middle of a text too
    r"|(?<![^\s\"'`(=,|])(?:~|\.\.?)?/\w[\w./-]*"  # /data, ./scans, ~/scans, as a word
    r"|file://\S*|\b[A-Za-z]:\\\S*|\binternal/"
    rf"|(?<![\w./:-])(?:[\w-][\w.-]*/)+[\w.-]+\.(?:{KINDS})\b"  # data/scans.zip
)


def place_in(text: str) -> str | None:
    """The first place that the text names, if it names one."""
    found = PLACE.search(text)
    return found.group() if found else None
