"""Surgical video: annotate every frame on the device, and never freeze the picture."""
