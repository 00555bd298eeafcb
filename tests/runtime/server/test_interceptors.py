import grpc
import pytest

from trocar.runtime import errors
from trocar.runtime.server.interceptors import MAX_DETAILS, STATUS, error_of, status_of

# The design's table.
DESIGN = {
    errors.InvalidInput: "INVALID_ARGUMENT",
    errors.ModelNotFound: "NOT_FOUND",
    errors.ManifestMismatch: "FAILED_PRECONDITION",
    errors.Unauthenticated: "UNAUTHENTICATED",
    errors.PermissionDenied: "PERMISSION_DENIED",
    errors.QueueFull: "RESOURCE_EXHAUSTED",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
    errors.DeviceError: "INTERNAL",
}


@pytest.mark.parametrize(("cls", "code"), DESIGN.items())
def test_the_table_of_the_design(cls: type[errors.TrocarError], code: str) -> None:
    assert status_of(cls("a\n line")) == (grpc.StatusCode[code], "a line")


def test_every_error_of_the_tree_has_a_code() -> None:
    tree = {
        cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.TrocarError)
    }
    assert tree == set(STATUS)


def test_a_subclass_takes_its_parents_code() -> None:
    class Odd(errors.InvalidInput):
        pass

    assert status_of(Odd("x"))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_error_shows_nothing_of_the_inside() -> None:
    code, line = status_of(ValueError("/home/someone/secret"))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in line


def test_details_fit_a_header() -> None:
    assert len(status_of(errors.InvalidInput("x" * 10_000))[1]) == MAX_DETAILS


@pytest.mark.parametrize("cls", [*DESIGN, errors.Unavailable, errors.Cancelled])
def test_the_client_gets_the_error_back_with_its_exit_code(cls: type[errors.TrocarError]) -> None:
    error = error_of(*status_of(cls("why")))
    assert error.exit_code == cls("").exit_code
    assert str(error) == "why"


def test_a_code_outside_the_table() -> None:
    error = error_of(grpc.StatusCode.DATA_LOSS, "")
    assert type(error) is errors.TrocarError
    assert str(error) == "data_loss"
