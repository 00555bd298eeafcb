"""Native kernels and their typed fronts."""
