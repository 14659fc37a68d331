"""Tables and pages made from stored scorecards."""
