"""Exports of packed networks to other languages and formats."""

from whit.export.c_compile import c_sections
from whit.export.c_source import CExport, export_c

__all__ = ["CExport", "c_sections", "export_c"]
