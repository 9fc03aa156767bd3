#!/usr/bin/env bash
# Sourced by every experiment: gives it `launch` and the folders that its paths start from.
#
# exp/finetuning/k400/NAME.sh runs as --job_name NAME and writes to outputs/finetuning/k400/NAME. Flags after the script's
# name come last and win: `bash exp/.../NAME.sh --epochs 1`; `--dry_run` prints the resolved run and the exact command.
#
# Environment, all optional; relative paths count from where the script is called:
#   DATA_PATH     what --data_path gets: the folder of train.csv, val.csv and test.csv (pretraining: the list itself)
#   PREFIX        what --prefix gets: the folder that holds the videos which the lists name
#   MODEL_PATH    what --finetune gets: the weights to start from
#   TEACHER_PATH  what --clip_teacher_weights gets
#   OUTPUT_DIR    what --output_dir gets: the folder of this run alone
#   DATA_ROOT     where lists and teacher weights lie when the above do not say it (default: data/ of the repository)
#   OUTPUT_ROOT   where runs lie, and where a recipe looks for the weights of the one before it (default: outputs/)
#   GPUS          processes to start on this machine (default: its GPUs, else 1)
#   PYTHON        interpreter (default: .venv of the repository, else python3)
set -euo pipefail

UMT_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
DATA_ROOT="${DATA_ROOT:-$UMT_ROOT/data}"
OUTPUT_ROOT="${OUTPUT_ROOT:-$UMT_ROOT/outputs}"

_python() {
    if [[ -n ${PYTHON:-} ]]; then
        echo "$PYTHON"
    elif [[ -x $UMT_ROOT/.venv/bin/python ]]; then
        echo "$UMT_ROOT/.venv/bin/python"
    else
        echo python3
    fi
}

# GPUs to use: $GPUS, else those that CUDA_VISIBLE_DEVICES leaves, else the machine's device files. Asking the driver's
# tools would take longer than the rest of a dry run.
_gpus() {
    local -a found=()
    if [[ -n ${GPUS:-} ]]; then
        echo "$GPUS"
        return
    elif [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
        [[ $CUDA_VISIBLE_DEVICES == -1 ]] || IFS=, read -ra found <<<"$CUDA_VISIBLE_DEVICES"
    else
        shopt -s nullglob
        found=(/dev/nvidia[0-9]*)
        shopt -u nullglob
    fi
    echo $((${#found[@]} > 1 ? ${#found[@]} : 1))
}

# launch pretrain|finetune FLAGS...: runs it, here and now, in place of this shell, so that signals reach it.
launch() {
    local task=$1 script path name gpus python word last="" dry=""
    local -a flags=() start shown
    shift
    script="$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)/$(basename "${BASH_SOURCE[1]}")"
    path="${script#"$UMT_ROOT"/exp/}"
    path="${path%.sh}"
    name="$(basename "$path")"
    [[ $path != /* ]] || path="$name"
    python="$(_python)"
    gpus="$(_gpus)"
    if ! [[ $gpus =~ ^[1-9][0-9]*$ ]]; then
        echo "GPUS ($gpus) must be a whole number above 0. Unset it to use every GPU of this machine." >&2
        exit 2
    fi
    # The folder of the code comes first, so that the experiments of a checkout run the code of that checkout.
    export PYTHONPATH="$UMT_ROOT${PYTHONPATH:+:$PYTHONPATH}"

    flags=(--job_name "$name" --output_dir "${OUTPUT_DIR:-$OUTPUT_ROOT/$path}")
    for word in "$@"; do
        if [[ $word == --dry_run || $word == --dry_run=* ]]; then
            dry="${word#--dry_run=}"
        elif [[ $last == --dry_run && $word =~ ^([Tt]rue|TRUE|1|yes|on|[Ff]alse|FALSE|0|no|off)$ ]]; then
            dry="$word"
        else
            flags+=("$word")
        fi
        last="$word"
    done

    # Where SLURM will come in: inside an allocation, or with PARTITION set, `start` becomes an srun of the same words.
    if ((gpus > 1)); then
        start=("$python" -m torch.distributed.run --standalone --nproc_per_node "$gpus" -m umt "$task")
    else
        start=("$python" -m umt "$task")
    fi
    # Where DeepSpeed will come in: it starts as the others do; only the flags differ.

    if [[ -n $dry && ! $dry =~ ^([Ff]alse|FALSE|0|no|off)$ ]]; then
        shown=("${start[@]}" "${flags[@]}")
        UMT_LAUNCH_COMMAND="$(printf '%q ' "${shown[@]}")" GPUS="$gpus" exec "$python" -m umt "$task" "${flags[@]}" --dry_run
    fi
    # One process looks before many leap: a mistake is then one sentence, not a traceback of the launcher.
    ((gpus == 1)) || GPUS="$gpus" "$python" -m umt.config "$task" "${flags[@]}"
    exec "${start[@]}" "${flags[@]}"
}
