"""TG-43 dose by pygrpm. Arguments: a JSON file with seeds and a grid, cm; run by a Python that has it."""

import importlib.metadata
import json
import sys
from pathlib import Path

from pygrpm.tg43 import Seed


def main() -> None:
    """Read the scene once; then, for each line read, the summed dose rate of its seeds."""
    scene = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    seed = Seed("IsoAid")
    box = (scene["least_cm"], scene["most_cm"], scene["voxel_cm"])
    say(name="pygrpm", version=importlib.metadata.version("pygrpm"))
    for _ in sys.stdin:
        dose = sum(seed.grid(*box, sourcepos=at).values for at in scene["seeds_cm"])
        say(shape=list(dose.shape), along_x=dose[:, scene["row"], scene["row"]].tolist())


def say(**found: object) -> None:
    """One line of JSON."""
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
