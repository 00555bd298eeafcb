"""The trained generator: from a case's features to seed probabilities on the lattice's window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trocar.planners.features import CHANNELS, SIDE
from trocar.planners.types import Float32Array
from trocar.runtime.errors import DeviceError, ManifestMismatch
from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.store import Model, Repository, shipped
from trocar.runtime.session.base import Session

MODEL = "tpgan"
_SITES = (SIDE, SIDE, SIDE)
NOISE_CHANNELS = 2
_STREAM = 2  # of the plan's seed: the search's samples are stream 1


@dataclass(frozen=True, slots=True)
class Generator:
    """A session of the network and what its manifest says of it. May be shared between threads.

    `novelty` describes the cases it was trained on, for `trocar.planners.novelty`.
    """

    session: Session
    name: str
    sha256: str
    novelty: Mapping[str, Any]

    @classmethod
    def open(
        cls, repository: Repository | None = None, *, threads: int = 1, version: int | None = None
    ) -> Generator:
        """Open a version, the newest unless told, in a repository; of the shipped models where none is given.

        Raises
        ------
        ModelNotFound
            The repository has no such model.
        ManifestMismatch
            A file is not what the manifest says, or the network is not of this generator's shape.
        """
        model = (repository or shipped()).open(MODEL, version)
        return cls.of(model, open_model(model, threads=threads))

    @classmethod
    def of(cls, model: Model, session: Session) -> Generator:
        """Take a model that is open.

        Raises
        ------
        ManifestMismatch
            The network is not of this generator's shape.
        """
        expected = {"features": (len(CHANNELS), *_SITES), "noise": (NOISE_CHANNELS, *_SITES)}
        found = {spec.name: spec.shape[1:] for spec in session.inputs}
        if found != expected:
            raise ManifestMismatch(f"{model.place}: expected a network that takes {expected}, got {found}")
        manifest = model.manifest
        name = f"{manifest.name}/{manifest.version}"
        return cls(session, name, manifest.files["model.onnx"], manifest.novelty)

    def propose(self, features: Float32Array, *, count: int, seed: int) -> Float32Array:
        """Seed probabilities (count, 16, 16, 16) float32 for one case.

        Parameters
        ----------
        features : (8, 16, 16, 16) float32, from `trocar.planners.features`.
        count : proposals; the first has zero noise, the others differ by theirs.
        seed : draws the noise.

        Raises
        ------
        DeviceError
            The network gave something else than probabilities.
        """
        noise = np.zeros((count, NOISE_CHANNELS, *_SITES), dtype=np.float32)
        random = np.random.default_rng([seed, _STREAM])
        noise[1:] = random.standard_normal((max(count - 1, 0), NOISE_CHANNELS, *_SITES), dtype=np.float32)
        batch = np.ascontiguousarray(np.broadcast_to(features, (count, *features.shape)))
        found = self.session.run({"features": batch, "noise": noise})["probability"]
        # What is not a number is neither. An order of seeds by it would be no order, and nobody would know.
        if not ((found >= 0) & (found <= 1)).all():
            raise DeviceError(
                f"{self.name}: expected probabilities of 0 to 1, got others; --start greedy plans without it"
            )
        return found
