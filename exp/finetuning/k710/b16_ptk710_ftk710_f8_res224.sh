#!/usr/bin/env bash
# UMT-B/16 on K710, 8 frames, from the K710-pretrained weights. Published: 81.9 top-1 (MODEL_ZOO).
source "$(dirname "${BASH_SOURCE[0]}")/../../../scripts/launch.sh"
launch finetune \
    --model vit_base_patch16_224 --input_size 224 --short_side_size 224 --num_frames 8 --tubelet_size 1 \
    --finetune "${MODEL_PATH:-$OUTPUT_ROOT/pretraining/b16_ptk710_f8_res224/checkpoint-latest.pth}" \
    --data_set Kinetics_sparse --nb_classes 710 \
    --data_path "${DATA_PATH:-$DATA_ROOT/k710}" --prefix "${PREFIX:-}" --split ',' \
    --recipe_gpus 16 --batch_size 16 --num_sample 2 --epochs 35 --warmup_epochs 2 --lr 2e-4 \
    --opt adamw --opt_betas 0.9 0.999 --weight_decay 0.05 --layer_decay 0.75 --drop_path 0.1 \
    --save_ckpt_freq 100 \
    --test_num_segment 4 --test_num_crop 3 --test_best \
    "$@"
