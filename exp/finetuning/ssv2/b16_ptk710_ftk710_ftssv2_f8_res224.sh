#!/usr/bin/env bash
# UMT-B/16 on Something-Something V2, 8 frames. Published: 70.8 top-1 (MODEL_ZOO).
# Starts from the K710-pretrained weights, although the name says ftk710.
# Tested on 2 clips x 3 crops, like the original's scripts; its table says 4 clips, which its code cannot test.
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/launch.sh"
launch finetune \
    --model vit_base_patch16_224 --input_size 224 --short_side_size 224 --num_frames 8 --tubelet_size 1 \
    --finetune "${MODEL_PATH:-$OUTPUT_ROOT/pretraining/b16_ptk710_f8_res224/checkpoint-latest.pth}" \
    --data_set SSV2 --nb_classes 174 \
    --data_path "${DATA_PATH:-$DATA_ROOT/ssv2}" --prefix "${PREFIX:-}" --split ' ' \
    --recipe_gpus 16 --batch_size 16 --num_sample 2 --epochs 30 --warmup_epochs 5 --lr 2e-4 \
    --opt adamw --opt_betas 0.9 0.999 --weight_decay 0.05 --layer_decay 0.75 --drop_path 0.1 \
    --save_ckpt_freq 100 \
    --test_num_segment 2 --test_num_crop 3 --test_best \
    "$@"
