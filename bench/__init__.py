"""Measured claims: each workload prints what it ran, on what, and p50/p99."""
