#!/usr/bin/env bash
# UMT-L/16 on K700, 16 frames, from the K710-finetuned weights. Published: 83.6 top-1 (MODEL_ZOO).
# Tested on 4 clips x 3 crops as published; the original's script tested 4 x 1.
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/launch.sh"
launch finetune \
    --model vit_large_patch16_224 --input_size 224 --short_side_size 224 --num_frames 16 --tubelet_size 1 \
    --finetune "${MODEL_PATH:-$OUTPUT_ROOT/finetuning/k710/l16_ptk710_ftk710_f8_res224/checkpoint-best.pth}" \
    --data_set Kinetics_sparse --nb_classes 700 \
    --data_path "${DATA_PATH:-$DATA_ROOT/k700}" --prefix "${PREFIX:-}" --split ',' \
    --recipe_gpus 16 --batch_size 8 --num_sample 2 --epochs 5 --warmup_epochs 1 --lr 1e-5 \
    --opt adamw --opt_betas 0.9 0.999 --weight_decay 0.05 --layer_decay 0.85 --drop_path 0.2 \
    --use_checkpoint --checkpoint_num 16 --save_ckpt_freq 100 \
    --test_num_segment 4 --test_num_crop 3 --test_best \
    "$@"
