"""What all tests here begin with."""

from tests.nn.conftest import seeded

__all__ = ["seeded"]
