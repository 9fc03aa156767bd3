"""Flags of the original and its relatives that change nothing here, and those whose feature does not exist yet.

The first are accepted, so that existing shell scripts run, with one warning that says why each has no effect; a recipe
adds those of its task (`FlagGroups.legacy`). The second stop the run, because leaving them out silently would train
something else than what was asked for.
"""

from __future__ import annotations

_LAUNCH = "rank and world size come from the launcher's environment"
_NORMALISE = "frames are always normalised with ImageNet's mean and deviation"
DEAD_TOO = "it had no effect in the original either"

COMMON: dict[str, str] = {
    "imagenet_default_mean_and_std": _NORMALISE,
    "start_epoch": "a run goes on from where its checkpoint stands",
    "world_size": _LAUNCH,
    "local_rank": _LAUNCH,
    "local-rank": _LAUNCH,
    "dist_on_itp": _LAUNCH,
    "dist_url": _LAUNCH,
}

_ENABLE = "use --enable_deepspeed, and --deepspeed_config FILE for settings of your own"

REFUSED: dict[str, str] = dict.fromkeys(("deepspeed", "deepscale", "deepscale_config", "deepspeed_mpi"), _ENABLE)
