"""The report: tables, figures and prose from metrics/ and plots/ alone."""

from xnornet.report.build import build
from xnornet.report.read import ReportError, Results

__all__ = ["ReportError", "Results", "build"]
