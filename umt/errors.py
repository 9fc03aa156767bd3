"""Errors that are a sentence for a person: what is wrong, where (flag or file:line), and what to do.

The command line prints the sentence alone and exits with code 2; library users catch them as `ValueError`.
"""

DISTRIBUTION = "umt-video"  # this library's name on PyPI, where another project is called umt


def install(extras: str = "") -> str:
    """The command that installs this library with `extras`, separated by commas; as error sentences quote it."""
    return f"pip install '{DISTRIBUTION}[{extras}]'" if extras else f"pip install {DISTRIBUTION}"


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


class ScoresError(UserError):
    """Results of a test that are incomplete, damaged, or of another test."""


class OutputError(UserError):
    """A folder or disk that cannot be written."""


# Exit codes of the command line, apart from 0 (done), 2 (a UserError) and 130 (Ctrl-C); taken from sysexits.h.
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: stopped by a signal or --max_hours with everything saved; the same command goes on
EXIT_PEER_LOST = 69  # EX_UNAVAILABLE: another process of the run died or hangs; the same command goes on


class PreemptedError(Exception):
    """The run was asked to stop, and has saved what it needs to go on. Not a mistake: `EXIT_PREEMPTED`."""


class PeerLostError(Exception):
    """Another process of this run is dead or hangs, or stopped by an error of its own; names rank, host and step.

    `code` is what this process exits with: `EXIT_PEER_LOST`, or 2 where the other one stopped by a UserError.
    """

    def __init__(self, text: str, code: int = EXIT_PEER_LOST) -> None:
        super().__init__(text)
        self.code = code
