#!/usr/bin/env bash
# UMT-B/16 on K700, 8 frames, from the K710-finetuned weights. Published: 78.5 top-1 (MODEL_ZOO).
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/launch.sh"
launch finetune \
    --model vit_base_patch16_224 --input_size 224 --short_side_size 224 --num_frames 8 --tubelet_size 1 \
    --finetune "${MODEL_PATH:-$OUTPUT_ROOT/finetuning/k710/b16_ptk710_ftk710_f8_res224/checkpoint-best.pth}" \
    --data_set Kinetics_sparse --nb_classes 700 \
    --data_path "${DATA_PATH:-$DATA_ROOT/k700}" --prefix "${PREFIX:-}" --split ',' \
    --recipe_gpus 16 --batch_size 16 --num_sample 2 --epochs 5 --warmup_epochs 1 --lr 2e-5 \
    --opt adamw --opt_betas 0.9 0.999 --weight_decay 0.05 --layer_decay 0.75 --drop_path 0.1 \
    --save_ckpt_freq 100 \
    --test_num_segment 4 --test_num_crop 3 --test_best \
    "$@"
