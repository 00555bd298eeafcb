from types import SimpleNamespace
from typing import Any, cast

import pytest

from trocar.runtime.server.auth import Auth


@pytest.mark.parametrize("known", [False, True])
def test_a_refusal_says_whether_there_is_such_a_method(known: bool) -> None:
    """A made-up name would stand in the log and be a label of metrics, without a token."""
    called = cast(Any, SimpleNamespace(method="/made.up/MUELLER", invocation_metadata=()))
    found = cast(Any, object()) if known else None
    assert Auth(cast(Any, None)).intercept_service(lambda _: found, called).nameless is not known
