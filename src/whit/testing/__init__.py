"""The public conformance battery: run it on a technique of your own."""

from whit.testing.cards import check_card
from whit.testing.conformance import check_technique

__all__ = ["check_card", "check_technique"]
