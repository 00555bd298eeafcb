"""Draw the README's picture of a plan: `picture.py FILE.png [PHANTOM]`."""

import sys
from pathlib import Path

from trocar.planners.dose.source import load_source
from trocar.planners.phantom import phantom_case
from trocar.planners.pipeline import PlanRequest, plan_case
from trocar.planners.protocol import load_protocol
from trocar.planners.report import render_artifacts


def main(path: Path, seed: int) -> None:
    """Plan a phantom with the default protocol and write the picture of the plan."""
    protocol = load_protocol("ldr-i125-145")
    request = PlanRequest(
        protocol=protocol,
        source=load_source(protocol.source),
        strength_u=protocol.strength_u,
        prescription_gy=protocol.prescription_gy,
    )
    result = plan_case(phantom_case(seed), request)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(render_artifacts(result, ["plan.png"])["plan.png"])
    print(f"wrote {path}: phantom {seed}, acceptable: {result.validity.acceptable}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 7)
