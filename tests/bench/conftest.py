from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def bfloat16() -> Iterator[None]:
    """Take this CPU for one that computes in bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
        yield


@pytest.fixture
def threads_while_timing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ModuleType], list[int]]]:
    """Of a module that times, how many threads torch may use each time it does; otherwise they are two."""

    def watch(module: ModuleType) -> list[int]:
        seen: list[int] = []
        compare = module.compare

        def watched(*arguments: Any, **options: Any) -> Any:
            seen.append(torch.get_num_threads())
            return compare(*arguments, **options)

        monkeypatch.setattr(module, "compare", watched)
        return seen

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield watch
    torch.set_num_threads(before)
