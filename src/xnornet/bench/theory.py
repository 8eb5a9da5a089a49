"""What speed-up the arithmetic allows: the paper's law, and the same law with this machine's own peak rates."""

from dataclasses import dataclass

from xnornet.bench import roofline
from xnornet.bench.timing import timing_lock

PAPER_RATIO = 64
"""Binary operations a clock over float ones: a 64-bit word against one number (Rastegari et al. 2016, section 4.1)."""


@dataclass(frozen=True)
class Peaks:
    """Peak rates of one core in 10^9 multiply-accumulates a second, measured: popcount loop and float32 FMA loop."""

    popcount: float
    float32: float

    def higher(self, other: "Peaks") -> "Peaks":
        """Of two measurements the higher rates: whatever else the machine does only lowers them."""
        return Peaks(max(self.popcount, other.popcount), max(self.float32, other.float32))

    @property
    def ratio(self) -> float:
        """What binary arithmetic gains over float32 at most, if both ran at their peaks."""
        return self.popcount / self.float32


def speedup_law(in_channels: int, kernel: int, ratio: float = PAPER_RATIO) -> float:
    """S = R n / (n + R), with n = c N_W products per output and R = `ratio`, for kernel x kernel filters.

    Per output, a float convolution makes n = c N_W multiply-accumulates at a rate F: time n / F. The binary one makes
    them at a rate P = R F, and then one float operation for the scale: n / P + 1 / F. The quotient is
    S = (n / F) / (n / P + 1 / F) = R n / (n + R). With R = 64, a word of bits for one float, this is the paper's
    S = 64 c N_W / (c N_W + 64) (Rastegari et al. 2016, section 4.1; its N_I cancels), 62.27 at c = 256 and 3x3. A CPU's
    vectors hold several floats, and R is the quotient of its two measured peaks (`Peaks.ratio`).

    Neither law knows of packing, of borders, or of the number of filters. ValueError for fewer than
    one channel or one tap, or a ratio that is not positive.
    """
    if in_channels < 1 or kernel < 1 or ratio <= 0:
        raise ValueError(f"no such layer: in_channels {in_channels}, kernel {kernel}, ratio {ratio}")
    products = in_channels * kernel**2
    return ratio * products / (products + ratio)


def measure_peaks() -> Peaks:
    """Measure the peaks of one core of this machine, under the timing lock; takes a moment."""
    with timing_lock():
        return Peaks(*roofline.peaks())
