import pytest

from xnornet.bench import roofline
from xnornet.bench.theory import Peaks, measure_peaks, speedup_law


def test_the_paper_quotes_this_figure() -> None:
    """62.27x for 256 channels and 3x3 filters (Rastegari et al. 2016, section 4.1)."""
    assert round(speedup_law(256, 3), 2) == 62.27


@pytest.mark.parametrize(("channels", "kernel"), [(1, 1), (3, 3), (20, 5), (1024, 20)])
def test_the_paper_s_equation(channels: int, kernel: int) -> None:
    n = channels * kernel**2
    assert speedup_law(channels, kernel) == pytest.approx(64 * n / (n + 64))


def test_the_law_is_the_quotient_of_both_times() -> None:
    peaks = Peaks(popcount=683.0, float32=32.0)
    n = 256 * 9
    seconds_float = n / peaks.float32
    seconds_binary = n / peaks.popcount + 1 / peaks.float32
    assert speedup_law(256, 3, peaks.ratio) == pytest.approx(seconds_float / seconds_binary)


def test_the_law_tends_to_the_ratio_of_the_peaks() -> None:
    assert speedup_law(10**9, 1, 21.3) == pytest.approx(21.3)
    assert speedup_law(1, 1, 1e12) == pytest.approx(1)


@pytest.mark.parametrize("arguments", [(0, 3), (256, 0), (256, 3, 0)])
def test_no_such_layer(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="no such layer"):
        speedup_law(*arguments)


def test_each_rate_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "peaks", lambda: (600.0, 30.0))
    assert measure_peaks() == Peaks(popcount=600.0, float32=30.0)
