"""Exports of packed networks to other languages and formats."""

from whit.export.c_compile import c_sections
from whit.export.c_source import CExport, export_c
from whit.export.onnx_export import OnnxExport, export_onnx

__all__ = ["CExport", "OnnxExport", "c_sections", "export_c", "export_onnx"]
