"""Training without gradients: one discrete weight after another takes its best value."""
