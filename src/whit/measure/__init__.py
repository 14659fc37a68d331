"""Count, time and record what a model costs: the only place that reads the test split."""
