"""Ways to hold weights, gradients and the optimiser's state over the processes of a run: one file each.

`base.Strategy` says what the training step and the trainer need of one. Whatever holds them, a checkpoint has the same
content: whole tensors under the model's own names, and the optimiser's state as the plain optimiser would give it.
"""
