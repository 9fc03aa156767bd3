"""Errors that are a sentence for a person: what is wrong, where (flag or file:line), and what to do.

The command line prints the sentence alone and exits with code 2; library users catch them as `ValueError`.
"""


class UserError(ValueError):
    """Something that the person who started the run can mend."""


class ConfigError(UserError):
    """A flag or a combination of flags that cannot work."""


class AnnotationError(UserError):
    """A list of videos that is missing, empty or malformed; names file:line."""


class VideoError(UserError):
    """A video or frame folder that cannot be read; names the file."""


class CheckpointError(UserError):
    """Weights that are missing, truncated, or do not fit the model."""


class OutputError(UserError):
    """A folder or disk that cannot be written."""
