"""`umt predict`: what is seen in videos, by a finetuned model."""
