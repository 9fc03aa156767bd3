"""Names of weights in other libraries' files, and what a state dict tells of its model: pure functions."""
