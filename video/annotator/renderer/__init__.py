"""Procedural surgical video with the truth beside it; NumPy and OpenCV only."""

from trocar.video.annotator.renderer.polyp import render_polyp
from trocar.video.annotator.renderer.scene import Scene, render_frame

__all__ = ["Scene", "render_frame", "render_polyp"]
