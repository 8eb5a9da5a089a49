"""What all tests here begin with."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights and inputs whichever tests ran before."""
    torch.manual_seed(0)
