"""Every error of ours is an RtlError and a built-in, reads plainly, and can be sent to a parent."""

import inspect
import pickle

import pytest

from rtl_plugin import errors
from rtl_plugin.errors import RtlError

OURS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", [k for k in OURS if k is not RtlError], ids=lambda k: k.__name__)
def test_it_is_ours_and_a_built_in_that_users_catch(kind: type[Exception]) -> None:
    assert issubclass(kind, RtlError)
    built_in = [base for base in kind.__mro__ if base.__module__ == "builtins"]
    assert built_in[0] not in (Exception, BaseException, object)


@pytest.mark.parametrize("kind", OURS, ids=lambda k: k.__name__)
def test_it_reads_as_it_was_written(kind: type[Exception]) -> None:
    message = "unknown ticket 'a'; this set has \"b\" — und 'ü'"
    assert str(kind(message)) == message
    assert str(kind()) == ""


@pytest.mark.parametrize("kind", OURS, ids=lambda k: k.__name__)
def test_it_survives_a_trip_between_processes(kind: type[Exception]) -> None:
    other = pickle.loads(pickle.dumps(kind("from a worker")))
    assert type(other) is kind
    assert str(other) == "from a worker"
