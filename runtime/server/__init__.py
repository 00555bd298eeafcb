"""The gRPC server: it hosts whatever services the `trocar.services` entry points name."""
