"""The engine contract on backend `torch` and the CPU."""

import pytest

from tests.contract.test_engine import *  # noqa: F403 - the contract suite, on the cases below

torch_models = pytest.importorskip("tests.support.torch_models", reason="torch is not installed", exc_type=ImportError)


@pytest.fixture(params=[case.param for case in torch_models.torch_cases("cpu")])
def case(request):
    return request.param
