"""Is anything that is installed here known to be vulnerable? Fails only where it is and an update mends it.

Asks PyPI's database by pip-audit, for a minute at most. Where the database cannot be reached, or knows nothing of what
is installed, one line says that nothing was checked: pip-audit itself would call that a clean result.
"""

from __future__ import annotations

import json
import subprocess
import sys

SECONDS = 60
COMMAND = (sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "10",
           "--local", "--skip-editable")  # fmt: skip
TOOLS = {"pip", "setuptools", "wheel"}  # come with the environment, and never run with anyone's images


def ask() -> tuple[str, str]:
    """What pip-audit found, as its JSON, and what it said; either may be empty."""
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "", f"no answer within {SECONDS} s"
    return done.stdout, done.stderr.strip()


def verdict(found: str, said: str) -> tuple[int, list[str]]:
    """The exit code, and lines for a person."""
    try:
        packages = [package for package in json.loads(found)["dependencies"] if package["name"] not in TOOLS]
    except (ValueError, KeyError, TypeError):
        return 0, [f"dependency audit skipped: {said.splitlines()[-1] if said else 'pip-audit gave no answer'}"]
    checked = [package for package in packages if "skip_reason" not in package]
    if not checked:
        return 0, [
            f"dependency audit skipped: the database knows none of {len(packages)} packages (no way to reach it?)"
        ]
    bad = [(p, v) for p in checked for v in p["vulns"]]
    lines = [f"dependency audit: {len(checked)} of {len(packages)} packages checked, {len(bad)} known vulnerabilities"]
    for package, vulnerability in bad:
        fixes = ", ".join(vulnerability["fix_versions"]) or "no release yet"
        lines.append(f"  {package['name']} {package['version']}: {vulnerability['id']}, mended in {fixes}")
    return int(any(vulnerability["fix_versions"] for _, vulnerability in bad)), lines


if __name__ == "__main__":
    code, lines = verdict(*ask())
    print("\n".join(lines))
    raise SystemExit(code)
