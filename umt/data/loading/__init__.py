"""From rows to batches: data sets, epoch order, worker processes."""
