import numpy as np
import pytest


def circle(x, y, radius, count=90):
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


@pytest.fixture(scope="session")
def make_circle():
    return circle
