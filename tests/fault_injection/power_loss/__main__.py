"""Let runs lose power, and run what follows in the disk states that may be left; exit code 1 if a promise is broken.

`python -m tests.fault_injection.power_loss [--seed N] [--states N] [--only NAME ...] [--work FOLDER]`. A campaign that
was stopped goes on where it was, as long as its working folder is there; remove that after a change of the code.
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


def main() -> int:
    """Run the campaign and print a line of JSON for each scenario, and the sums."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--states", type=int, help="states to draw for each scenario")
    parser.add_argument("--checked", type=float, default=CHECKED, help="fraction of a class's other states to run too")
    parser.add_argument("--recoveries", type=int, help="recoveries of each scenario that lose power too")
    parser.add_argument("--executed", type=int, help="states of each scenario to run at most, a seeded sample")
    parser.add_argument("--only", nargs="+", default=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--work", type=Path, help="folder to work in; by default one in memory, the same each time")
    options = parser.parse_args()
    parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    work = options.work or parent / f"power-loss-{hashlib.sha256(bytes(ROOT)).hexdigest()[:8]}"
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
