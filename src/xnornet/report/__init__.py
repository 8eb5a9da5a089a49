"""The report: tables, figures and prose from metrics/ and plots/ alone."""

from xnornet.report.build import build
from xnornet.report.files import ReportError
from xnornet.report.read import Results

__all__ = ["ReportError", "Results", "build"]
