"""`umt finetune`: a classifier of clips is trained, validated and tested. recipe.py, data.py, task.py, kind.py."""
