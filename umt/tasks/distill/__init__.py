"""`umt pretrain`: a student is aligned with a frozen image teacher. recipe.py, data.py, task.py, kind.py."""
