from __future__ import annotations

import pytest

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.dose.source import load_source
from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid
from trocar.planners.phantom import phantom_case
from trocar.planners.problem import build_problem
from trocar.planners.protocol import load_protocol


@pytest.fixture(scope="session")
def protocol():
    return load_protocol("ldr-i125-145")


@pytest.fixture(scope="session")
def engine(protocol):
    return DoseEngine(load_source(protocol.source))


@pytest.fixture(scope="session")
def small_case():
    """Phantom 4: a gland of about 20 cc, the quickest to plan."""
    return phantom_case(4)


@pytest.fixture(scope="session")
def small_volumes(small_case):
    lattice, _ = default_lattice(small_case, None, None)
    return lattice, anatomy(small_case, evaluation_grid(small_case, lattice))


@pytest.fixture(scope="session")
def small_problem(small_volumes, engine, protocol):
    lattice, volumes = small_volumes
    return build_problem(
        volumes, lattice, engine, protocol, strength_u=protocol.strength_u, prescription_gy=145.0, seed=0
    )
