"""Flags of the original and its relatives that change nothing here, and those whose feature does not exist yet.

The first are accepted, so that existing shell scripts run, with one warning that says why each is without effect. The
second stop the run, because leaving them out silently would train something else than what was asked for.
"""

from __future__ import annotations

_LAUNCH = "rank and world size come from the launcher's environment"
_NORMALISE = "frames are always normalised with ImageNet's mean and deviation"
_DEAD_TOO = "it had no effect in the original either"

COMMON = {
    "imagenet_default_mean_and_std": _NORMALISE,
    "start_epoch": "a run goes on from where its checkpoint stands",
    "world_size": _LAUNCH,
    "local_rank": _LAUNCH,
    "local-rank": _LAUNCH,
    "dist_on_itp": _LAUNCH,
    "dist_url": _LAUNCH,
}

LEGACY: dict[str, dict[str, str]] = {
    "pretrain": {
        **COMMON,
        "decoder_depth": _DEAD_TOO,
        "normlize_target": _DEAD_TOO + "; --clip_norm_type normalises the targets",
        "clip_decoder_type": "there is one kind of decoder, linear and LayerNorm",
        "clip_return_attn": "the teacher gives its attention whenever --mask_type attention needs it",
        "train_interpolation": _DEAD_TOO,
        "test_best": "pretraining has no test",
    },
    "finetune": {
        **COMMON,
        "color_jitter": _DEAD_TOO + "; --aa holds the colour operations",
        "crop_pct": _DEAD_TOO,
        "resplit": _DEAD_TOO,
        "eval_data_path": _DEAD_TOO + "; --data_path holds train.csv, val.csv and test.csv",
        "num_segments": "the data set decides how frames are sampled, --num_frames how many",
        "dist_eval": "validation and test are always shared by all processes, and every view counts once",
        "model_ema_force_cpu": "the moving average lives where the model does",
    },
}

_ENABLE = "use --enable_deepspeed, and --deepspeed_config FILE for settings of your own"

REFUSED: dict[str, str] = dict.fromkeys(("deepspeed", "deepscale", "deepscale_config", "deepspeed_mpi"), _ENABLE)
