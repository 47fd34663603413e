"""Which of the processes that compute one stage together this is: the leader, rank 0, does all reading of state and all
writing; a stage that computes alone is its own leader.

Their launcher (torch's, started by ``launch``) tells each its number through the environment.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

ERRORS = "TORCHELASTIC_ERROR_FILE"  # where the launcher looks for what a process has to say of its end


def leads() -> bool:
    """Whether this process is the leader, or alone."""
    return ERRORS not in os.environ or os.environ.get("RANK", "0") == "0"


def leave_word(sentence: str) -> bool:
    """Whether the launcher will say this sentence, which it does once, for whichever process ended first."""
    path = os.environ.get(ERRORS)
    if not path:
        return False
    extra = {"timestamp": str(int(time.time())), "py_callstack": ""}
    Path(path).write_text(json.dumps({"message": {"message": sentence, "extraInfo": extra}}), encoding="utf-8")
    return True
