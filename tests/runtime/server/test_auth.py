from types import SimpleNamespace
from typing import Any, cast

from trocar.runtime.server.auth import Auth


def test_a_name_that_is_no_method_is_grpc_s_to_refuse() -> None:
    """It would stand in the log and be a label of metrics, made up by whoever has no token."""
    called = cast(Any, SimpleNamespace(method="/made.up/MUELLER", invocation_metadata=()))
    auth = Auth(cast(Any, None))
    assert auth.intercept_service(lambda _: None, called) is None
    assert auth.intercept_service(lambda _: cast(Any, object()), called) is not None
