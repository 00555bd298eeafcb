"""Bytes of a region, as a request names them."""

from __future__ import annotations

from dataclasses import dataclass

from trocar.runtime.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a region, as a request names them."""

    region: str
    offset: int
    size_bytes: int

    def require_within(self, size_bytes: int, what: str) -> None:
        """Raise `InvalidInput` where they do not lie in the region, which has so many bytes."""
        if self.offset < 0 or self.size_bytes < 0 or self.offset + self.size_bytes > size_bytes:
            raise InvalidInput(
                f"{what}: expected bytes within the {size_bytes} of region {self.region!r}, "
                f"got {self.size_bytes} from {self.offset}"
            )
