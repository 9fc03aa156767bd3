#!/usr/bin/env bash
# UMT-L/16 at 384 px on Moments in Time V1, 8 frames. Published: 48.7 top-1 (MODEL_ZOO).
# Starts from the K400-finetuned weights with a new head. Tested on 4 clips as published; the original's script tested 6.
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/launch.sh"
launch finetune \
    --model vit_large_patch16_384 --input_size 384 --short_side_size 384 --num_frames 8 --tubelet_size 1 \
    --finetune "${MODEL_PATH:-$OUTPUT_ROOT/finetuning/k400/l16_ptk710_ftk710_ftk400_f8_res224/checkpoint-best.pth}" --delete_head \
    --data_set mitv1_sparse --nb_classes 339 \
    --data_path "${DATA_PATH:-$DATA_ROOT/mitv1}" --prefix "${PREFIX:-}" --split ' ' \
    --recipe_gpus 16 --batch_size 8 --num_sample 1 --epochs 4 --warmup_epochs 1 --lr 1e-5 \
    --opt adamw --opt_betas 0.9 0.999 --weight_decay 0.1 --layer_decay 0.85 --drop_path 0.2 \
    --use_checkpoint --checkpoint_num 18 --save_ckpt_freq 100 \
    --test_num_segment 4 --test_num_crop 3 --test_best \
    "$@"
