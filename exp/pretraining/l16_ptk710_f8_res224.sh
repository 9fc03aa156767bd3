#!/usr/bin/env bash
# UMT-L/16 pretrained on K710 with CLIP-L/14 at 196 px as its teacher, 8 frames. Published weights: MODEL_ZOO.
# 200 epochs. The original's script said 201 only because its schedule could run out in the last epoch.
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/launch.sh"
launch pretrain \
    --model pretrain_umt_large_patch16_224 --input_size 224 --num_frames 8 --tubelet_size 1 --drop_path 0.2 \
    --clip_teacher clip_l14 --clip_input_resolution 196 --clip_decoder_embed_dim 1024 --clip_output_dim 768 \
    --clip_teacher_weights "${TEACHER_PATH:-$DATA_ROOT/clip/vit_l14.pth}" --clip_norm_type l2 --clip_loss_type l2 --clip_loss_ratio 1 \
    --clip_return_layer 6 --clip_return_interval 1 --clip_student_return_interval 1 --mask_type attention --mask_ratio 0.8 \
    --data_set Kinetics_sparse --data_path "${DATA_PATH:-$DATA_ROOT/k710/train.csv}" --prefix "${PREFIX:-}" --split ',' \
    --num_segments 8 --sampling_rate 1 --num_sample 1 --flip \
    --recipe_gpus 32 --batch_size 64 --epochs 200 --warmup_epochs 40 --lr 1.5e-4 --min_lr 1e-5 \
    --opt adamw --opt_betas 0.9 0.95 --weight_decay 0.05 --save_ckpt_freq 1000 \
    "$@"
