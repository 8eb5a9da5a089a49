"""The parameters of the repository, and the data sets that need no network."""

from pathlib import Path

import pytest

from xnornet.data import Prepared
from xnornet.data.prepare import prepare
from xnornet.params import Params, load

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def params() -> Params:
    return load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def digits(params: Params) -> Prepared:
    return prepare("digits", params.digits.data)


@pytest.fixture(scope="module")
def shapes(params: Params) -> Prepared:
    return prepare("shapes", params.shapes.data.model_copy(update={"train": 260, "test": 20}))
