"""DVHs by dicompyler-core. Arguments: RTSTRUCT, RTDOSE, ROI numbers; run by a Python that has it."""

import importlib.metadata
import json
import sys

import pydicom
from dicompylercore import dvhcalc


def main() -> None:
    """Read the files once; then, for each line read, a DVH of every ROI."""
    structures, dose = pydicom.dcmread(sys.argv[1]), pydicom.dcmread(sys.argv[2])
    numbers = [int(text) for text in sys.argv[3:]]
    say(name="dicompyler-core", version=importlib.metadata.version("dicompyler-core"))
    for _ in sys.stdin:
        found = [dvhcalc.get_dvh(structures, dose, number) for number in numbers]
        say(d90_gy=[float(dvh.D90.value) for dvh in found], volume_cc=[float(dvh.volume) for dvh in found])


def say(**found: object) -> None:
    """One line of JSON."""
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
