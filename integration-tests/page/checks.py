"""Checks of the live page in a real browser. `scripts/page-test --help` says how to run them.

A check is a function whose name begins with `check_`, in `saved.py` and `live.py`. Each compares what a browser shows with the
document that the page was given, and with the addresses that the browser asked for."""

import argparse
import json
import sys
import time
from pathlib import Path

import cluster
import figures
import live
import saved


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/page-test", description="Checks the live page in Chromium."
    )
    parser.add_argument("names", nargs="*", help="only the checks whose names have one of these words")
    parser.add_argument("--shots", type=Path, help="keep pictures of the page in this folder")
    parser.add_argument(
        "--hour", action="store_true", help="also feed an hour's events to one page; takes three minutes"
    )
    parser.add_argument("--live", metavar="URL", help="check the page of this controller instead")
    parser.add_argument(
        "--cluster",
        metavar="CLERK",
        help="start a cluster with this program, such as bin/clerk, and check its page",
    )
    parser.add_argument(
        "--page", type=Path, help="check this file, the output of `clerk page`, instead; needs --document"
    )
    parser.add_argument("--document", type=Path, help="the document that the file was made of")
    given = parser.parse_args()
    live.SHOTS = given.shots
    if given.shots:
        given.shots.mkdir(parents=True, exist_ok=True)
    if given.live:
        checks = {"the page of a controller": lambda: live.controller(given.live)}
    elif given.cluster:
        checks = {"the page of a cluster": lambda: cluster.page_of_a_cluster(given.cluster)}
    elif given.page:
        checks = {
            str(given.page): lambda: figures.compare(
                saved.saved(given.page.read_text()), json.loads(given.document.read_text())
            )
        }
    else:
        checks = {
            name[6:].replace("_", " "): check
            for name, check in (vars(saved) | vars(live)).items()
            if name.startswith("check_")
        }
        if given.hour:
            checks["an hour of events"] = live.hour
        checks = {
            name: check
            for name, check in checks.items()
            if not given.names or any(it in name for it in given.names)
        }
    failed = 0
    for name, check in checks.items():
        begun = time.monotonic()
        try:
            check()
            print(f"ok      {time.monotonic() - begun:5.1f} s  {name}", flush=True)
        except Exception as error:
            failed += 1
            print(
                f"FAILED  {time.monotonic() - begun:5.1f} s  {name}\n        {type(error).__name__}: {error}",
                flush=True,
            )
    print(f"{len(checks) - failed} of {len(checks)} checks of the page passed")
    sys.exit(1 if failed or not checks else 0)


if __name__ == "__main__":
    main()
