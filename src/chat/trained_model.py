"""The trained folder, loaded by transformers: base and adapter, prompt ids to a reply.

Checking the folder is left to `saved_model_checks`, prompts to `trained_chat`, the conversation so far to
`live_conversation`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from joint_adapter import join_adapter_products
from peft import PeftModel, get_peft_model_state_dict
from saved_model_checks import SavedModel
from trained_chat import TrainedChat, load_tokenizer
from transformers import GenerationConfig, RepetitionPenaltyLogitsProcessor
from transformers.utils import logging as transformers_logging

from common.base_model_files import check_safetensors_file
from common.compute_device import (
    Device,
    choose_4bit_layout,
    choose_chat_device,
    load_causal_model,
    look_at_machine,
    make_quantization_config,
)
from common.fused_layers import fuse_norms
from common.model_folder import ADAPTER_NAME, Sampling
from common.outside_files import loading
from common.script import ScriptError, shown_path


@dataclass(frozen=True)
class TrainedModel(TrainedChat):
    """A base with its adapter, ready to generate; `model` is a PeftModel (`disable_adapter()` gives the base)."""

    model: Any
    device: Device

    @property
    def computed_on(self) -> str:
        """The device and the number type."""
        return str(self.device)

    def generate(
        self,
        input_ids: torch.Tensor,
        sampling: Sampling,
        seed: int,
        attention_mask: torch.Tensor | None = None,
        **library_options: Any,
    ) -> torch.Tensor:
        """Return the prompts of `input_ids` (rows, tokens; padded on the left), each followed by its reply.

        `library_options` go to the model's `generate`: a cache, a stopping criterion. A reply has at most its maximum
        length; a shorter one in a batch is padded with a token that ends a turn.
        """
        torch.manual_seed(seed)
        names = ("temperature", "min_p", "top_p", "top_k") if sampling.do_sample else ()
        processors = []
        if sampling.repetition_penalty != 1.0:
            processors.append(
                RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty, prompt_ignore_length=input_ids.shape[1])
            )
        output: torch.Tensor = self.model.generate(
            input_ids=input_ids,
            # Explicit: otherwise it is guessed from the padding id, which also occurs as an ordinary token.
            attention_mask=torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            generation_config=GenerationConfig(
                do_sample=sampling.do_sample,
                max_new_tokens=self.reply_room(sampling),
                min_new_tokens=1,
                eos_token_id=sorted(self.end_ids),
                pad_token_id=min(self.end_ids),
                **{name: getattr(sampling, name) for name in names},
            ),
            logits_processor=processors,
            **library_options,
        )
        return output


def load_trained_model(
    saved: SavedModel, device: str = "auto", dtype: str = "auto", is_merged: bool = False
) -> TrainedModel:
    """Load the checked folder onto `device`; raise ScriptError when device, weights or chat template cannot be used.

    `is_merged` merges the adapter into the weights where that is exact enough (float32): a processor is then a fifth
    faster, and `disable_adapter()` still works.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    tokenizer, end_ids = load_tokenizer(saved)
    chosen = choose_chat_device(device, dtype, saved.base_dir, look_at_machine())
    with loading(shown_path(saved.base_dir), "the base model", "download it again, or train again on another one"):
        base = load_causal_model(
            saved.base_dir,
            dtype=chosen.dtype,
            device_map={"": 0 if chosen.kind == "cuda" else chosen.name},
            quantization_config=make_quantization_config(chosen),
        )
    choose_4bit_layout(base, is_training=False)
    base.generation_config = GenerationConfig()  # the trained folder's values apply, not the base's
    model = load_adapter(base, saved)
    model.eval()
    if is_merged and chosen.dtype == torch.float32 and not chosen.is_quantized and not base.config.tie_word_embeddings:
        model.merge_adapter()
    if chosen.kind == "cuda" and chosen.is_quantized:
        join_adapter_products(model, chosen.dtype)
        fuse_norms(model)
    positions = getattr(base.config.get_text_config(), "max_position_embeddings", None) or saved.settings["max_length"]
    return TrainedModel(
        model=model,
        tokenizer=tokenizer,
        settings=saved.settings,
        sampling=saved.sampling,
        end_ids=end_ids,
        context_tokens=min(saved.settings["max_length"], positions),
        device=chosen,
    )


def load_adapter(base: Any, saved: SavedModel) -> Any:
    """Return `base` with the adapter of the checked folder, as a PeftModel.

    Raises ScriptError unless the adapter's tensors are exactly those of this base and these target modules, and finite:
    the library only warns of a name that it does not find, and then the untrained base would reply.
    """
    weights_path = saved.folder / ADAPTER_NAME
    with loading(shown_path(weights_path), "the adapter", "train again"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one library about another, of tied weights, of names: checked below
        model = PeftModel.from_pretrained(base, saved.folder, is_trainable=False)
        expected = get_peft_model_state_dict(model, save_embedding_layers=False)
        wanted = {name: list(tensor.shape) for name, tensor in expected.items()}
        header = check_safetensors_file(weights_path)
    found = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    if found != wanted:
        num_missing, num_other = len(wanted.keys() - found.keys()), len(found.keys() - wanted.keys())
        raise ScriptError(
            f"{shown_path(weights_path)}: does not fit its base model and target modules ({num_missing:,} of "
            f"{len(wanted):,} tensors are missing, {num_other:,} belong to nothing); train again, or restore it from a backup"
        )
    weights = (weight for name, weight in model.named_parameters() if "lora_" in name)
    if not all(torch.isfinite(weight).all() for weight in weights):
        raise ScriptError(
            f"{shown_path(weights_path)}: holds numbers that are not finite (the training diverged); train again"
        )
    return model
