"""No task: what the tasks on videos share. Flags of their model and data, and the checks and rows that follow."""
