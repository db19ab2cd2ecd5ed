"""Programs of these tests compile quickly."""

from collections.abc import Iterator

import pytest

from tests.system import unoptimised_programs


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with unoptimised_programs(tmp_path_factory.getbasetemp()):
        yield
