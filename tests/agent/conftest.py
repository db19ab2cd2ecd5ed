"""Set-ups of the update, shared by all files."""

import pytest

from tests.agent.train_step_setup import Setup, shared_setup


@pytest.fixture(scope="module")
def discrete() -> Setup:
    return shared_setup("discrete")


@pytest.fixture(scope="module")
def continuous() -> Setup:
    return shared_setup("continuous")


@pytest.fixture(scope="module", params=["discrete", "continuous"])
def either(request) -> Setup:
    return request.getfixturevalue(request.param)
