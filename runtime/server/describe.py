"""Descriptors for server reflection: of the default pool, and of the inference protocol's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pool


class Pools:
    """Looks into protobuf's default pool, then into another one.

    `trocar.inference_v2` keeps its messages out of the default pool, see `tools/stubs.sh`; it is imported
    when somebody asks.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a `Find...` method of both pools; `KeyError` where neither has what it looks for."""
        if not name.startswith("Find"):
            raise AttributeError(name)

        def find(*sought: Any) -> Any:
            try:
                return getattr(descriptor_pool.Default(), name)(*sought)
            except KeyError:
                from trocar.inference_v2 import open_inference_pb2

                return getattr(open_inference_pb2.DESCRIPTOR.pool, name)(*sought)

        return find
