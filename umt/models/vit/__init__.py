"""Plain video transformers: the classifier, the student of pretraining, and what looks into them."""
