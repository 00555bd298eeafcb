"""One workload a module."""
