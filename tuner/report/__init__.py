"""What came of a run, for a person: one self-contained page, pictures, a live view."""

from tuner.report._answer import headline
from tuner.report._compare import comparison_page
from tuner.report._data import Attempt, RunData, Trial
from tuner.report._export import export_charts
from tuner.report._parts import Chart, Page
from tuner.report._printed import result_of
from tuner.report._read import read_run
from tuner.report._sections import report_page
from tuner.report._serve import ReportServer
from tuner.report._write import REPORT, write_page, write_report

__all__ = [
    "REPORT",
    "Attempt",
    "Chart",
    "Page",
    "ReportServer",
    "RunData",
    "Trial",
    "comparison_page",
    "export_charts",
    "headline",
    "read_run",
    "report_page",
    "result_of",
    "write_page",
    "write_report",
]
