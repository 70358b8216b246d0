"""The page about a run: one HTML file that needs nothing else."""

from robossl.report.command import report as report
