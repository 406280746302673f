"""The report: one self-contained page that opens from disk, offline, without any third-party script."""

from captum_concepts.report.audio import encode
from captum_concepts.report.page import render, write_report

__all__ = ["encode", "render", "write_report"]
