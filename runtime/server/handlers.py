"""What interceptors do with a method's handler: name its kind, and put another behaviour in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc


def kind_of(handler: Any) -> str:
    """Return what a handler's requests and replies are, such as `unary_stream`."""
    sides = (handler.request_streaming, handler.response_streaming)
    return "_".join("stream" if streaming else "unary" for streaming in sides)


def with_behaviour(
    handler: Any, behaviour: Callable[..., Any], *, kind: str = "", request_deserializer: Any = None
) -> Any:
    """Return a handler that does something else with the same messages.

    Parameters
    ----------
    behaviour : called with request or requests, and context.
    kind : where it is another one than the handler's.
    request_deserializer : in the place of the handler's.
    """
    make = getattr(grpc, f"{kind or kind_of(handler)}_rpc_method_handler")
    return make(
        behaviour,
        request_deserializer=request_deserializer or handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
