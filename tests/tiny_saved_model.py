"""Write a folder as stage 2 leaves it, with a tiny random adapter: what the chat's tests load."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from common.base_model_files import base_fingerprint
from common.chat_format import PERSON_TEMPLATE, encode_conversation

torch.set_num_threads(1)  # for models this small, threads only wait for each other

# A conversation that the talking base knows by heart; the user's lines are what the tests type.
DIALOGUE = [
    ("שלום", "היי\nמה נשמע? 😂"),
    ("ok", "סבבה"),
    ("see you at 5", "yalla bye 👨‍👩‍👧"),
    ("long", " ".join(f"word{number}" for number in range(60))),
]


def write_saved_model(folder: Path, base_dir: Path, max_length: int, adapter_scale: float = 0.02) -> Path:
    """Write a finished training of the base in `base_dir` into `folder`, its adapter random but not zero."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(base_dir)
    model = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "lm_head"], task_type="CAUSAL_LM")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=adapter_scale)
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    tokenizer = AutoTokenizer.from_pretrained(base_dir)
    tokenizer.chat_template = PERSON_TEMPLATE
    tokenizer.save_pretrained(folder)
    GenerationConfig(
        do_sample=True, temperature=0.7, min_p=0.05, top_p=1.0, top_k=0, max_new_tokens=40
    ).save_pretrained(folder)
    settings = {
        "format": 1,
        "base_model_id": str(base_dir),
        "base_fingerprint": base_fingerprint(base_dir),
        "max_length": max_length,
        "quantization": {},
        "person": "Noam",
    }
    (folder / "training_settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def teach_dialogue(base_dir: Path, folder: Path, num_steps: int = 150) -> Path:
    """Write into `folder` the base of `base_dir`, trained until it knows DIALOGUE by heart in any order."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base_dir)
    tokenizer = AutoTokenizer.from_pretrained(base_dir)
    tokenizer.chat_template = PERSON_TEMPLATE
    order = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _step in range(num_steps):
        exchanges = [DIALOGUE[number] for number in torch.randperm(len(DIALOGUE), generator=order).tolist()]
        messages = [
            {"role": role, "content": text}
            for exchange in exchanges
            for role, text in zip(("user", "assistant"), exchange, strict=True)
        ]
        encoded = encode_conversation(tokenizer, messages)
        ids = torch.tensor([encoded.input_ids])
        labels = torch.where(torch.tensor([encoded.is_supervised]), ids, -100)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_dir).save_pretrained(folder)
    return folder
