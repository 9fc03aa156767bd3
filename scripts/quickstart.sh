#!/usr/bin/env bash
# Runs the whole method on a small data set, in minutes and without downloading data: renders videos, trains an image
# teacher, pretrains a student by masked distillation, finetunes it and, with the same budget, a model with random weights,
# tests both with 4 clips x 3 crops, probes the frozen student, and writes quickstart/report.html.
#
#   bash scripts/quickstart.sh [--seed N] [--output DIR] [--fresh]
#
# An interrupted run resumes; --fresh starts over. The environment is made by scripts/env.sh: TORCH_INDEX_URL chooses
# another build of torch.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

seed=0 output="$root/quickstart" fresh=""
while (($#)); do
    case $1 in
        --seed) seed="${2:?--seed needs a number}" && shift 2 ;;
        --output) output="${2:?--output needs a folder}" && shift 2 ;;
        --fresh) fresh=yes && shift ;;
        *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
    esac
done

UMT_EXTRAS=train
source "$root/scripts/env.sh"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
[[ -z $fresh ]] || rm -rf "$output"
mkdir -p "$output"
data="$output/data" started=$SECONDS

say() { printf '\n%s\n' "$*"; }

if [[ ! -e $data/labels.txt ]]; then
    say "1/7  Rendering the moving shapes: 16 classes, what is seen x how it moves"
    "$PYTHON" -m umt.tools.quickstart.shapes --output "$data" --seed "$seed"
fi

if [[ ! -e $output/teacher/teacher.pth ]]; then
    say "2/7  Training a tiny image teacher on single frames"
    "$PYTHON" -m umt.tools.quickstart.teacher --output "$output/teacher/teacher.pth" --seed "$seed"
fi

say "3/7  Pretraining a student: it sees a fifth of the tokens and predicts the teacher's features there"
"$PYTHON" -m umt pretrain \
    --model pretrain_umt_tiny_patch8_48 --input_size 48 --num_frames 8 --tubelet_size 1 \
    --clip_teacher clip_tiny_patch8_48 --clip_input_resolution 48 --clip_teacher_weights "$output/teacher/teacher.pth" \
    --clip_return_layer 2 --mask_type attention --mask_ratio 0.8 \
    --data_path "$data/pretrain.csv" --prefix "$data" --split ',' --num_segments 8 --num_sample 2 --flip \
    --batch_size 16 --epochs 4 --warmup_epochs 0 --warmup_steps 20 --lr 2.4e-2 --min_lr 0 \
    --opt_betas 0.9 0.95 --clip_grad 1 --seed "$seed" --num_workers 1 --output_dir "$output/pretrain"

finetune() { # finetune NAME FLAGS...: the same budget for both starting points
    local name=$1
    shift
    "$PYTHON" -m umt finetune \
        --model vit_tiny_patch8_48 --input_size 48 --num_frames 8 --tubelet_size 1 --drop_path 0.1 \
        --data_set Kinetics_sparse --nb_classes 16 --data_path "$data" --prefix "$data" --split ',' \
        --aa none --mixup 0 --cutmix 0 --reprob 0 --crop_scale 0.6 1 --num_sample 1 \
        --batch_size 8 --epochs 10 --warmup_epochs 1 --lr 6.4e-2 --min_lr 0 --layer_decay 0.85 \
        --test_num_segment 4 --test_num_crop 3 --seed "$seed" --num_workers 1 --output_dir "$output/$name" "$@"
}

say "4/7  Finetuning from the pretrained weights, then testing from 4 clips x 3 crops"
finetune finetune --finetune "$output/pretrain/checkpoint-latest.pth"

say "5/7  The same finetuning from random weights"
finetune scratch

if [[ ! -e $output/probe/results.json ]]; then
    say "6/7  What the frozen student knows, and the same model with random weights"
    "$PYTHON" -m umt probe --checkpoint "$output/pretrain/checkpoint-latest.pth" none \
        --data_path "$data" --prefix "$data" --split ',' --test_clips 4 --test_crops 3 \
        --attentive_lr 0.003 0.01 0.03 --attentive_weight_decay 0.1 --seed "$seed" --num_workers 1 \
        --output "$output/probe"
    rm -rf "$output/probe/features" # 160 MB
fi

say "7/7  The report"
"$PYTHON" -m umt.tools.quickstart.report --folder "$output"
echo "Done in $((SECONDS - started)) s."
