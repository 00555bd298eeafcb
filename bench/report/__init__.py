"""Measurements as a terminal shows them, as Markdown, as a page to hand over, and as CSV."""
