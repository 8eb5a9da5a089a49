"""What all sentences of the report share: a claim is looked up before it is made."""

from decimal import ROUND_HALF_UP, Decimal

HARDLY = 1.1
"""Up to which ratio numbers count as the same: that of a noisy timing."""


def claim(holds: bool, sentence: str, otherwise: str = "") -> str:
    """`sentence` if it holds, else `otherwise`."""
    return sentence if holds else otherwise


def half_up(value: float) -> str:
    """With two decimals. Means of two accuracies often end in half of the last one; floats go to either side of it."""
    return str(Decimal(f"{value:.6f}").quantize(Decimal("0.01"), ROUND_HALF_UP))


def two_digits(value: float) -> str:
    """As in 4,500,000, 39 and 1.7."""
    return f"{float(f'{value:.2g}'):,.10g}"


def digits(value: float, count: int) -> str:
    """So many significant digits, zeros at the end too, or all of a whole number: as in 0.0800, 1.51, 146 and 1,460."""
    return f"{value:#.{count}g}".rstrip(".") if round(value) < 10**count else f"{value:,.0f}"


def between(low: float, high: float) -> str:
    """As in 10.9x to 12.0x, or 12.0x where both look the same."""
    ends = [f"{value:.1f}x" for value in (low, high)]
    return " to ".join(dict.fromkeys(ends))


def listed(names: list[str]) -> str:
    """As in: a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
