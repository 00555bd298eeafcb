"""Surgical video: annotations on every frame, and a picture that never waits for them."""
