"""Are there known vulnerabilities in what is installed here? (`make audit`)

pip-audit calls it success when a database answers that it knows none of the packages, as a mirror
of PyPI does. This says "nothing was checked" then, and ends with 2; with 1 where there are some.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

COMMAND = ["-m", "pip_audit", "--format", "json", "--skip-editable", "--progress-spinner", "off"]


def main() -> int:
    done = subprocess.run(  # noqa: S603  (no shell; whoever calls this may call anything)
        [sys.executable, *COMMAND, *sys.argv[1:]], capture_output=True, text=True, check=False
    )
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return _unchecked(f"pip-audit did not finish: {last}")
    checked = [package for package in packages if "vulns" in package]
    if not checked:
        return _unchecked("it knows none of the packages (is it a mirror?)")
    flaws = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in "
        f"{', '.join(flaw['fix_versions']) or 'no version yet'}"
        for package in checked
        for flaw in package["vulns"]
    ]
    for flaw in flaws:
        print(flaw)
    print(f"{len(checked)} packages checked, {len(flaws)} known vulnerabilities")
    unknown = sorted(package["name"] for package in packages if "vulns" not in package)
    if unknown:
        print(f"{len(unknown)} not in the database: {', '.join(unknown)}")
    return 1 if flaws else 0


def _unchecked(reason: str) -> int:
    print(f"Nothing was checked. The database of vulnerabilities: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
