"""The quantized model with LoRA: the published count exactly, real 4-bit weights on the CPU, plain peft reads the adapter."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from processes import RANK_NAMES, SPLITTING_NAMES, WORLD_SIZE_NAMES, check_launch, is_first_process, world_size
from qlora_model import (
    add_lora,
    count_parameters,
    enable_gradient_checkpointing,
    find_lora_targets,
    load_quantized_base,
    read_model_config,
)
from safetensors import safe_open
from small_runs import CPU
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CTRLConfig,
    Gemma3Config,
    LlamaForSequenceClassification,
    LlamaModel,
    MistralConfig,
    OpenAIGPTConfig,
    OPTConfig,
    ViTModel,
)

from common.base_model_files import BaseModel, check_base_folder
from common.compute_device import Device
from common.script import ScriptError

SEVEN_PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
DEFAULT_BASE_SHAPE = MistralConfig(
    vocab_size=64001,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def test_default_base_has_exactly_the_published_number_of_parameters():
    model = on_meta(DEFAULT_BASE_SHAPE)
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_503_884_288
    count = count_parameters(add_lora(model, rank=32, alpha=64, dropout=0.0))
    assert count.trainable == 86_065_184
    assert count.total == 7_589_949_472
    assert f"{count.trainable_percent:.4f}" == "1.1339"


SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99}
SMALL |= {"num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("model_type", "values", "targets"),
    [
        ("llama", SMALL, SEVEN_PROJECTIONS | {"lm_head"}),
        ("qwen3", SMALL | {"tie_word_embeddings": True}, SEVEN_PROJECTIONS | {"lm_head"}),
        ("gemma2", SMALL | {"head_dim": 32}, SEVEN_PROJECTIONS | {"lm_head"}),
        ("phi3", SMALL, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"}),
        (
            "gpt2",
            {"n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2},
            {"c_attn", "c_fc", "c_proj", "lm_head"},
        ),
        ("gpt_neox", SMALL, {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "lm_head"}),
        # peft would take gate_proj, up_proj and down_proj of the shared expert for all experts.
        (
            "glm4_moe",
            SMALL | {"n_routed_experts": 2, "num_experts_per_tok": 1, "first_k_dense_replace": 1, "head_dim": 32},
            {"q_proj", "k_proj", "v_proj", "o_proj", "lm_head"},
        ),
        # peft refuses out_proj there.
        ("mamba2", SMALL | {"num_heads": 4, "head_dim": 32, "n_groups": 1, "state_size": 8}, {"in_proj", "lm_head"}),
    ],
)
def test_lora_targets_are_found_in_every_family_without_a_warning(model_type, values, targets):
    model = on_meta(AutoConfig.for_model(model_type, **values))
    assert set(find_lora_targets(model)) == targets
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = add_lora(model, rank=4, alpha=8, dropout=0.0)
    assert not adapted.peft_config["default"].target_parameters  # the chat refuses such an adapter
    adapted_names = {
        name.split(".lora_")[0].split(".")[-1] for name, p in adapted.named_parameters() if p.requires_grad
    }
    assert adapted_names == targets


def test_of_a_model_that_also_reads_pictures_the_text_model_alone_is_trained():
    """Its vision tower has layers of the same names, and no text reaches it."""
    text = {name: SMALL[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 56, "patch_size": 14}
    model = on_meta(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))
    adapted = add_lora(model, rank=4, alpha=8, dropout=0.0)
    trained = {name.split(".lora_")[0] for name, p in adapted.named_parameters() if p.requires_grad}
    assert {name.split(".")[-1] for name in trained} == SEVEN_PROJECTIONS | {"lm_head"}
    assert len(trained) == 7 * SMALL["num_hidden_layers"] + 1
    assert not [name for name in trained if "vision" in name]


def test_a_weight_that_is_missing_in_the_base_is_refused(small_base_dir, tmp_path):
    """The library would give it random values."""
    folder = shutil.copytree(small_base_dir, tmp_path / "base")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] + 1, "layer_types": None}))
    with pytest.raises(ScriptError, match="lack 9 tensors") as refusal:
        load_quantized_base(folder, CPU)
    assert "\n" not in str(refusal.value)


def test_a_base_whose_shapes_contradict_its_config_is_one_line(small_base_dir, tmp_path):
    folder = shutil.copytree(small_base_dir, tmp_path / "base")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 128}))
    with pytest.raises(ScriptError, match="other shapes than its config.json; download") as refusal:
        load_quantized_base(folder, CPU)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("model_class", "problem"),
    [
        (
            LlamaModel,
            "have no head to write text with .lm_head.weight.: it is a model that classifies or compares texts",
        ),
        (LlamaForSequenceClassification, "have no head to write text with"),
        (ViTModel, "vit: is no kind of model that continues a text .causal LM.; choose another base model"),
    ],
)
def test_a_model_for_another_purpose_is_refused_by_that(model_class, problem, tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model_class(model_class.config_class(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(ScriptError, match=problem) as refusal:
        load_quantized_base(tmp_path, Device("cpu", torch.float32, is_quantized=True))
    assert "\n" not in str(refusal.value)


def test_dropout_that_a_family_keeps_as_a_number_is_switched_off():
    config = OPTConfig(
        vocab_size=99, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64, dropout=0.5
    )
    model = add_lora(AutoModelForCausalLM.from_config(config), rank=4, alpha=8, dropout=0.0).train()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_layer_whose_name_is_a_number_is_no_block_of_that_number():
    config = CTRLConfig(n_embd=64, dff=64, n_layer=1, n_head=2, vocab_size=99)
    model = AutoModelForCausalLM.from_config(config)
    numbered = {"transformer.h.0.ffn.0", "transformer.h.0.ffn.2"}
    assert set(find_lora_targets(model)) == {"Wq", "Wk", "Wv", "dense", "lm_head"} | numbered
    add_lora(model, rank=4, alpha=8, dropout=0.0)(input_ids=torch.arange(3, 40)[None]).logits.sum().backward()


def test_how_evenly_experts_are_used_is_no_part_of_the_loss(tmp_path):
    config = AutoConfig.for_model("mixtral", **SMALL, num_local_experts=2, output_router_logits=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_quantized_base(tmp_path, Device("cpu", torch.float32, is_quantized=False)).train()
    ids = torch.arange(3, 40)[None]
    output = model(input_ids=ids, labels=ids)
    expected = torch.nn.functional.cross_entropy(output.logits[0, :-1], ids[0, 1:])
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_family_without_gradient_checkpointing_goes_on_without():
    config = OpenAIGPTConfig(vocab_size=99, n_embd=64, n_layer=1, n_head=2)
    model = add_lora(AutoModelForCausalLM.from_config(config), rank=4, alpha=8, dropout=0.0)
    enable_gradient_checkpointing(model)
    model(input_ids=torch.arange(3, 40)[None]).logits.sum().backward()


def test_model_without_linear_layers_is_refused():
    model = on_meta(DEFAULT_BASE_SHAPE)
    model.model.layers, model.lm_head = torch.nn.ModuleList(), torch.nn.Identity()
    with pytest.raises(ScriptError, match="no linear layers"):
        find_lora_targets(model)


@pytest.fixture(scope="module")
def small_base_dir(tmp_path_factory):
    """A tiny random Mistral on disk, as checked as any base."""
    folder = tmp_path_factory.mktemp("tiny-base")
    torch.manual_seed(0)
    config = MistralConfig(**SMALL | {"hidden_size": 128, "intermediate_size": 256})
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    check_base_folder(folder)
    return folder


@pytest.fixture
def input_ids():
    return torch.arange(3, 43).reshape(2, 20)


def test_base_is_really_in_four_bits_and_the_rest_in_the_devices_dtype(small_base_dir):
    model = load_quantized_base(small_base_dir, CPU)
    linear_layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(linear_layers) == 2 * len(SEVEN_PROJECTIONS)
    for layer in linear_layers:
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested  # quantized twice
        assert layer.compute_dtype == torch.float32
    assert type(model.lm_head) is torch.nn.Linear


def test_embeddings_are_not_upcast(small_base_dir):
    model = load_quantized_base(small_base_dir, Device("cpu", torch.bfloat16, is_quantized=True))
    add_lora(model, rank=4, alpha=8, dropout=0.0)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert model.model.norm.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("adapter_dtype", [torch.float32, torch.bfloat16])
def test_every_adapter_weight_and_nothing_else_has_the_dtype_asked_for_and_trains(
    small_base_dir, input_ids, adapter_dtype
):
    torch.manual_seed(0)
    model = add_lora(
        load_quantized_base(small_base_dir, CPU), rank=4, alpha=8, dropout=0.0, adapter_dtype=adapter_dtype
    )
    model.train()
    model(input_ids=input_ids, labels=input_ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        assert (parameter.grad is not None) == ("lora_" in name)
        if "lora_" in name:
            assert parameter.dtype == adapter_dtype
    assert any("lm_head.lora_B" in name and p.grad.abs().sum() > 0 for name, p in model.named_parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradient_checkpointing_changes_no_gradient(small_base_dir, input_ids, dropout):
    def gradients(is_checkpointed):
        torch.manual_seed(0)
        model = add_lora(load_quantized_base(small_base_dir, CPU), rank=4, alpha=8, dropout=dropout)
        if is_checkpointed:
            enable_gradient_checkpointing(model)
        assert model.get_base_model().model.layers[0].gradient_checkpointing == is_checkpointed
        model.train()
        model(input_ids=input_ids, labels=input_ids).loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    assert all(torch.equal(a, b) for a, b in zip(gradients(True), gradients(False), strict=True))


def test_adapter_loads_in_plain_peft_bit_for_bit_and_carries_no_base_weight(small_base_dir, input_ids, tmp_path):
    torch.manual_seed(0)
    base = BaseModel(str(small_base_dir), small_base_dir)
    model = add_lora(load_quantized_base(small_base_dir, CPU), rank=4, alpha=8, dropout=0.0, base=base)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start: an adapter that does nothing would prove nothing
            torch.nn.init.normal_(parameter, std=0.1)
    model.eval()
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as weights:
        names = list(weights.keys())
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    assert any("lm_head" in name for name in names)

    plain = PeftModel.from_pretrained(load_quantized_base(small_base_dir, CPU), tmp_path / "adapter").eval()
    with torch.no_grad():
        assert torch.equal(plain(input_ids).logits, model(input_ids).logits)
        with plain.disable_adapter():
            assert not torch.equal(plain(input_ids).logits, model(input_ids).logits)


def test_adapter_names_its_base_so_that_it_is_found_from_any_folder(small_base_dir, tmp_path):
    up_and_down = small_base_dir / ".." / small_base_dir.name
    for base, name, revision in [
        (BaseModel(f"../{small_base_dir.name}", up_and_down), str(small_base_dir.resolve()), None),
        (BaseModel("owner/name", small_base_dir, "0123"), "owner/name", "0123"),
    ]:
        model = add_lora(on_meta(MistralConfig(**SMALL)), rank=4, alpha=8, dropout=0.0, base=base)
        settings = model.peft_config["default"]
        settings.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
        assert (saved["base_model_name_or_path"], saved["revision"]) == (name, revision)


def test_unknown_kind_of_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(ScriptError, match="config.json: a model of this kind cannot be loaded"):
        read_model_config(Path(tmp_path))


class TestProcesses:
    @pytest.fixture(autouse=True)
    def no_launcher(self, monkeypatch):
        for name in (
            "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION", *WORLD_SIZE_NAMES, *RANK_NAMES, *SPLITTING_NAMES,
        ):  # fmt: skip
            monkeypatch.delenv(name, raising=False)

    def test_plain_start_is_one_process_that_prints(self):
        check_launch()
        assert world_size() == 1
        assert is_first_process()

    @pytest.mark.parametrize(("of_all", "of_this"), list(zip(WORLD_SIZE_NAMES, RANK_NAMES, strict=True)))
    def test_of_several_processes_the_first_alone_prints(self, of_all, of_this, monkeypatch):
        monkeypatch.setenv(of_all, "2")
        monkeypatch.setenv(of_this, "0")
        assert (world_size(), is_first_process()) == (2, True)
        monkeypatch.setenv(of_this, "1")
        assert not is_first_process()

    def test_accelerates_silent_single_process_is_caught(self, monkeypatch):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        check_launch()  # `accelerate launch` with one process is fine
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        with pytest.raises(ScriptError, match="starts only one"):
            check_launch()
        monkeypatch.setenv("WORLD_SIZE", "2")
        check_launch()
        assert world_size() == 2

    @pytest.mark.parametrize("name", SPLITTING_NAMES)
    def test_a_launcher_that_splits_the_model_is_refused(self, name, monkeypatch):
        monkeypatch.setenv(name, "true")
        with pytest.raises(ScriptError, match="splitting it over GPUs is not supported"):
            check_launch()
        monkeypatch.setenv(name, "false")
        check_launch()
