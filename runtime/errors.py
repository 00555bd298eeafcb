"""The one error tree. A message says what was expected and what came, in one line."""

from __future__ import annotations

NO_MEMORY = "expected memory enough for this request, got too little; nothing was kept of it"


class TrocarError(Exception):
    """Anything trocar refuses or fails at.

    `exit_code` is what the command line exits with; the gRPC status of each class stands in
    `trocar.runtime.server.interceptors`.
    """

    exit_code = 3


class InvalidInput(TrocarError):
    """The caller's data or options cannot be used; nothing was computed, nothing written."""

    exit_code = 2


class ModelNotFound(TrocarError):
    """No model, source or protocol of that name."""

    exit_code = 2


class ManifestMismatch(TrocarError):
    """A file is not what its manifest or signature says."""

    exit_code = 2


class Unauthenticated(TrocarError):
    """The caller did not say who it is, or could not prove it."""

    exit_code = 2


class PermissionDenied(TrocarError):
    """The caller is known, and may not do this."""

    exit_code = 2


class Unimplemented(TrocarError):
    """Something of a protocol that this server leaves out."""


class QueueFull(TrocarError):
    """More work than the server accepts; try again later."""


class OutOfMemory(TrocarError):
    """A request needs more memory than there is."""


class DeadlineExceeded(TrocarError):
    """The caller's deadline passed, or cannot be met."""


class Cancelled(TrocarError):
    """The caller went away."""


class Unavailable(TrocarError):
    """No server answers, or it is finishing its work and takes no more."""


class DeviceError(TrocarError):
    """An accelerator or a native kernel failed."""
