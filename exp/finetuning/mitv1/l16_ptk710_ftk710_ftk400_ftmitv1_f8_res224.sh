#!/usr/bin/env bash
# UMT-L/16 on Moments in Time V1, 8 frames. Published: 48.0 top-1 (MODEL_ZOO).
# Starts from the K400-finetuned weights with a new head: 339 classes instead of 400. (The original's script started from its own output.)
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/launch.sh"
launch finetune \
    --model vit_large_patch16_224 --input_size 224 --short_side_size 224 --num_frames 8 --tubelet_size 1 \
    --finetune "${MODEL_PATH:-$OUTPUT_ROOT/finetuning/k400/l16_ptk710_ftk710_ftk400_f8_res224/checkpoint-best.pth}" --delete_head \
    --data_set mitv1_sparse --nb_classes 339 \
    --data_path "${DATA_PATH:-$DATA_ROOT/mitv1}" --prefix "${PREFIX:-}" --split ' ' \
    --recipe_gpus 16 --batch_size 32 --num_sample 1 --epochs 20 --warmup_epochs 5 --lr 1e-4 \
    --opt adamw --opt_betas 0.9 0.999 --weight_decay 0.05 --layer_decay 0.85 --drop_path 0.2 \
    --use_checkpoint --checkpoint_num 12 --save_ckpt_freq 100 \
    --test_num_segment 4 --test_num_crop 3 --test_best \
    "$@"
