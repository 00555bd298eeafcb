"""Readers and writers: files and messages become cases and plans, and back."""
