"""Who calls, and whether it may: bearer tokens, before a byte of the request is read.

`grpc.health.v1.Health` answers everybody: a load balancer has no token, and it says nothing but ready or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import grpc

from trocar.runtime.errors import PermissionDenied, TrocarError, Unauthenticated
from trocar.runtime.server.interceptors import status_of
from trocar.runtime.server.tokens import Token, Tokens

OPEN = "/grpc.health.v1.Health/"
OWN = "/grpc."
_CALLER: ContextVar[Token | None] = ContextVar("trocar_caller", default=None)


def caller() -> Token | None:
    """Return whose request this thread answers; None where tokens are off."""
    return _CALLER.get()


class Auth(grpc.ServerInterceptor):
    """Lets a call through whose token has the scope for it.

    Parameters
    ----------
    tokens : the good ones.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        # Full names of services, `trocar.v1.PlanningService`, to those of scopes, `planning`.
        self.services: Mapping[str, str] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler, or one that refuses at once."""
        method = handler_call_details.method
        if not method.startswith(OPEN):
            try:
                token = self._known(handler_call_details.invocation_metadata)
                self._require_scope(token, method)
            except TrocarError as error:
                refusal = _refuse(error, itself=method.startswith(OWN))
                # A name that a caller made up gets into no log and no metric.
                refusal.nameless = continuation(handler_call_details) is None
                return refusal
            # gRPC runs interceptors and the handler in one context, which is the call's own.
            _CALLER.set(token)
        return continuation(handler_call_details)

    def _known(self, metadata: Any) -> Token:
        given = [value for key, value in metadata or () if key == "authorization"]
        if len(given) != 1 or not isinstance(given[0], str):
            raise Unauthenticated(
                f"expected one 'authorization: Bearer TOKEN' in the metadata, got {len(given) or 'none'}"
            )
        scheme, _, secret = given[0].partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("expected 'authorization: Bearer TOKEN', got another form of it")
        token = self._tokens.find(secret.strip())
        if token is None:
            raise Unauthenticated("expected a token that this server knows, got another")
        if token.expired:
            raise Unauthenticated(f"expected a token that is still good, got {token.name!r}, which expired")
        return token

    def _require_scope(self, token: Token, method: str) -> None:
        full, _, name = method.removeprefix("/").partition("/")
        service = self.services.get(full)
        # A service that is not here is gRPC's to refuse; reflection is for whoever has a token.
        if service is not None and not token.allows(service, name):
            raise PermissionDenied(
                f"expected a token with the scope {service!r} or '{service}/{name}', got {token.name!r}, "
                f"which has {', '.join(sorted(token.scopes)) or 'none'}"
            )


def _refuse(error: TrocarError, *, itself: bool) -> Any:
    """Return a handler that does not wait for the request.

    Parameters
    ----------
    itself : whether it has to abort by itself, where no `Guard` turns errors into statuses.
    """

    def refuse(_: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        if itself:
            context.abort(*status_of(error))
        raise error

    return grpc.stream_stream_rpc_method_handler(refuse)
