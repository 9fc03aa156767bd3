"""umt: video transformers by masked distillation from an image teacher. Importing it costs nothing."""

__version__ = "0.1.0"
