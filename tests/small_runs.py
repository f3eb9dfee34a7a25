"""A run of stage 2 that several tests of its checks and plans speak of: where, on which base, how much."""

import torch
from training_work import Work

from common.base_model_files import BaseModel
from common.compute_device import Device

CPU = Device("cpu", torch.float32, is_quantized=True)
GPU = Device("cuda:0", torch.bfloat16, is_quantized=True)
DEFAULT_BASE = BaseModel("yam-peleg/Hebrew-Mistral-7B", None)
WORK = Work(
    epoch_tokens=300_000,
    epoch_supervised_tokens=100_000,
    fill=0.97,
    num_steps=110,
    num_epochs=3,
    row_tokens=2048,
    supervised_share=0.5,
)
