"""Packing: trained modules become .whit files as small as their values allow."""

from whit.packing.formats import Choice, choose_storage
from whit.packing.packer import Packed, pack

__all__ = ["Choice", "Packed", "choose_storage", "pack"]
