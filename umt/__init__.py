"""umt: video transformers by masked distillation from an image teacher. Importing it costs nothing.

`umt.load(checkpoint)` gives a model ready to be used (`umt.inference.recognizer`); it is imported when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umt.inference.recognizer import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module("umt.inference.recognizer").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
