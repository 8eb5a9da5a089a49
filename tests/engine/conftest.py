"""What is otherwise too little work for helpers is shared here, and by more of them than most machines have cores."""

from collections.abc import Iterator

import pytest

from xnornet.engine import program


@pytest.fixture(scope="package", autouse=True)
def share_everything() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "LEAST_WORK", 0)
        patch.setattr(program, "LEAST_BATCH_WORK", 0)
        patch.setattr(program, "CORES", 4)
        yield
