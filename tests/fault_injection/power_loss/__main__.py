"""Let runs lose power, and run what follows in the disk states that may be left; exit code 1 if a promise is broken.

`python -m tests.fault_injection.power_loss [--seed N] [--states N] [--only NAME ...]`. A campaign that was stopped goes
on where it was, if neither the code has changed nor the machine was restarted, which empties its folder in memory.
"""

import argparse
import gc
import hashlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.fault_injection.power_loss.campaign import CHECKED, Campaign, Limits
from tests.fault_injection.power_loss.scenarios import SCENARIOS
from tests.helpers.training_runs import ROOT

MEMORY = Path("/dev/shm")  # much faster than a disk, which flushes for real


def folder_in_memory() -> Path:
    """Return where a campaign works, the same as long as the code is; folders of other code are removed."""
    code = [*ROOT.glob("*.py")]
    for name in ("models", "utils", "tests/fault_injection/power_loss"):
        code += [path for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".c")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(code))).hexdigest()[:12]
    parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    checkout = f"power-loss-{hashlib.sha256(bytes(ROOT)).hexdigest()[:8]}"
    for other in parent.glob(f"{checkout}-*"):
        if other.name != f"{checkout}-{digest}":
            shutil.rmtree(other)
    return parent / f"{checkout}-{digest}"


def main() -> int:
    """Run the campaign and print a line of JSON for each scenario, and the sums."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--states", type=int, help="states to draw for each scenario")
    parser.add_argument("--checked", type=float, default=CHECKED, help="fraction of a class's other states to run too")
    parser.add_argument("--recoveries", type=int, help="recoveries of each scenario that lose power too")
    parser.add_argument("--executed", type=int, help="states of each scenario to run at most, a seeded sample")
    parser.add_argument("--only", nargs="+", default=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--work", type=Path, help="folder to work in, and to keep; by default one in memory")
    options = parser.parse_args()
    work = options.work or folder_in_memory()
    campaign = Campaign(work, seed=options.seed)
    gc.collect()
    gc.freeze()  # the children share these pages
    limits = Limits(options.states, options.checked, options.recoveries, options.executed)
    reports = []
    for scenario in SCENARIOS:
        if scenario.name in options.only:
            reports.append(campaign.run(scenario, limits))
            print(json.dumps(asdict(reports[-1])), flush=True)
    if options.work is None:
        shutil.rmtree(work)
    counts = ("operations", "recordings", "generated", "distinct", "classes", "executed", "seconds")
    print(json.dumps({"seed": options.seed} | {key: sum(getattr(r, key) for r in reports) for key in counts}))
    return int(any(report.problems for report in reports))


if __name__ == "__main__":
    sys.exit(main())
