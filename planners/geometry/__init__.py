"""Contours to volumes: rasterising, shape interpolation, margins, and the grids a case is planned on."""

from trocar.planners.geometry.expand import Margins, expand
from trocar.planners.geometry.grid import coverage_notes, evaluation_grid
from trocar.planners.geometry.lattice import default_lattice
from trocar.planners.geometry.raster import rasterise_contours
from trocar.planners.geometry.shape import (
    Extent,
    Run,
    anatomy,
    distance_outside_mm,
    extent_mm,
    fraction_on,
    runs,
    signed_distance_mm,
    slab_volume_cc,
)

__all__ = [
    "Extent",
    "Margins",
    "Run",
    "anatomy",
    "coverage_notes",
    "default_lattice",
    "distance_outside_mm",
    "evaluation_grid",
    "expand",
    "extent_mm",
    "fraction_on",
    "rasterise_contours",
    "runs",
    "signed_distance_mm",
    "slab_volume_cc",
]
