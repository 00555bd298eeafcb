"""One interface to a network that is ready to run, and one backend a file."""
