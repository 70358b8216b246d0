"""The page about a run: one HTML file that needs no other files."""

from robossl.report.command import report as report
