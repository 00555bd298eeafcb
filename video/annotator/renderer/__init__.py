"""Procedural surgical video with the truth beside it; NumPy and OpenCV only."""

from trocar.video.annotator.renderer.clip import (
    OUT_OF_BODY,
    SCRIPT,
    ClipFrame,
    Phase,
    phase_spans,
    render_clip,
)
from trocar.video.annotator.renderer.polyp import render_polyp
from trocar.video.annotator.renderer.scene import Scene, render_frame

__all__ = [
    "OUT_OF_BODY",
    "SCRIPT",
    "ClipFrame",
    "Phase",
    "Scene",
    "phase_spans",
    "render_clip",
    "render_frame",
    "render_polyp",
]
