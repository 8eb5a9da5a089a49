"""Reading metrics/ and plots/: a missing file, a missing key or a NaN is an error that names it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

TEXT = dict.fromkeys(("actual", "predicted", "arm", "against", "contestant", "layer", "note"), str)
"""Columns that are text; all others are numbers, or true and false."""

AGAIN = "delete it and run `dvc repro`"


class ReportError(ValueError):
    """A file under metrics/ or plots/ is missing, or does not hold what the report needs."""


class ResultFiles:
    """The JSON and CSV files under `root`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def json(self, path: str, *keys: str, wanted: Sequence[str] = (), numbers: Sequence[str] = ()) -> Any:
        """The value at `keys` of a JSON file, every number finite: an object with the keys `wanted` and `numbers`.

        numbers: keys at which numbers must stand. ReportError.
        """
        try:
            value = json.loads((self.root / path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ReportError(f"{path} is missing: make it with `dvc repro`") from None
        except ValueError as error:
            raise ReportError(f"{path} is not JSON ({error}): {AGAIN}") from None
        for depth, key in enumerate(keys):
            value = _entry(path, keys[:depth], value, key)
        for key in wanted:
            _entry(path, keys, value, key)
        for key in numbers:
            if not isinstance(number := _entry(path, keys, value, key), int | float):
                raise ReportError(f"{path}: {'.'.join([*keys, key])} is {number!r}, not a number: {AGAIN}")
        _check_finite(path, ".".join(keys), value)
        return value

    def csv(self, path: str, columns: Sequence[str], *, partly: Sequence[str] = ()) -> pd.DataFrame:
        """A CSV file with at least one row, `columns`, all filled, and `partly` filled ones. ReportError."""
        try:
            # Names of classes and arms are text, whether they look like numbers or are called None.
            frame = pd.read_csv(self.root / path, dtype=TEXT, keep_default_na=False, na_values=["", "nan", "NaN"])
        except FileNotFoundError:
            raise ReportError(f"{path} is missing: make it with `dvc repro`") from None
        except (ValueError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
            raise ReportError(f"{path} is not a table ({error}): {AGAIN}") from None
        for column in (*columns, *partly):
            if column not in frame:
                raise ReportError(f"{path} has no column {column}: {AGAIN}")
        if frame.empty:
            raise ReportError(f"{path} has no rows: {AGAIN}")
        for column in (*columns, *partly):
            if column not in TEXT and not is_numeric_dtype(frame[column]):
                raise ReportError(f"{path}: column {column} has a cell that is not a number: {AGAIN}")
        for column in (*columns, *partly):
            if frame[column].isin([math.inf, -math.inf]).any() or (column in columns and frame[column].isna().any()):
                raise ReportError(f"{path}: column {column} has an empty or infinite cell: {AGAIN}")
        return frame

    def one_each(self, path: str, columns: Sequence[str], key: Sequence[str]) -> pd.DataFrame:
        """The same of a table with one row for each value of the columns `key`."""
        frame = self.csv(path, columns)
        if (twice := frame.duplicated(list(key))).any():
            which = ", ".join(f"{name} {frame[twice].iloc[0][name]}" for name in key)
            raise ReportError(f"{path} has two rows of {which}: {AGAIN}")
        return frame


def _entry(path: str, keys: Sequence[str], value: Any, key: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise ReportError(f"{path} has no {'.'.join([*keys, key])}: {AGAIN}")
    return value[key]


def _check_finite(path: str, key: str, value: Any) -> None:
    if isinstance(value, dict):
        for name, entry in value.items():
            _check_finite(path, f"{key}.{name}".lstrip("."), entry)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ReportError(f"{path}: {key} is {value}: {AGAIN}")
