"""Names of weights in other libraries' files, what a state dict says of its model, and plans for loading it."""
