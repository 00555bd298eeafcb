"""Approving a plan: bound to what it was made from, proved anew, and on record."""
