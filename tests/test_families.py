"""A tiny base of each family goes the whole way: training by the script, chat, export. Only config and template differ."""

import json

import base_families
import pytest
import torch
from conversing import say
from fine_tuning_model import main as train
from live_conversation import Conversation
from merged_model import write_merged_model
from saved_model_checks import check_saved_model
from trained_model import load_trained_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.chat_format import find_end_of_turn_id
from common.model_folder import Sampling

ASK, REPLY = "ping", "pong all day"
EXCHANGE = [{"role": "user", "content": ASK}, {"role": "assistant", "content": REPLY}]
BEFORE = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": REPLY}]
# Two fifths are one exchange, the others have it after another one: a template may treat the two otherwise.
CONVERSATIONS = [EXCHANGE, BEFORE + EXCHANGE, BEFORE + EXCHANGE + BEFORE, EXCHANGE, BEFORE] * 8
STEPS = ["--learning-rate", "1e-2", "--epochs", "5", "--batch-tokens", "256", "--max-length", "256"]
GREEDY = Sampling(do_sample=False, max_new_tokens=12)


@pytest.fixture(scope="module", params=[*base_families.FAMILIES, "lfm2", "falcon"])
def saved(request, tmp_path_factory):
    """The trained folder of one family, checked as the chat does."""
    folder = tmp_path_factory.mktemp(request.param.replace(".", "_"))
    tokenizer = base_families.make_tokenizer(
        request.param, [turn["content"] for talk in CONVERSATIONS[:3] for turn in talk]
    )
    config = base_families.make_config(request.param)
    config.vocab_size = config.vocab_size_per_layer_input = len(tokenizer) + 8
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    (folder / "data.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in CONVERSATIONS))
    flags = ["--base-model-id", folder / "base", "--path-to-data", folder / "data.jsonl"]
    flags += ["--saved-model-path", folder / "model", "--device", "cpu", "--threads", "1", *STEPS]
    assert train(list(map(str, flags))) == 0
    return check_saved_model(folder / "model")


@pytest.mark.slow
def test_a_family_is_trained_answers_as_trained_and_is_exported_as_trained(saved, tmp_path):
    report = json.loads((saved.folder / "training_report.json").read_text())
    assert report["validation"]["tuned"]["loss"] < report["validation"]["base"]["loss"] - 1

    trained = load_trained_model(saved, device="cpu", dtype="float32")
    write_merged_model(saved, tmp_path / "exported")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert exported.generation_config.eos_token_id == find_end_of_turn_id(tokenizer)
    for history in ([], BEFORE):
        # What another program does with the exported folder.
        prompt = tokenizer.apply_chat_template(
            [*history, *EXCHANGE[:1]], add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        assert trained.encode_prompt([*history, *EXCHANGE[:1]])[0] == prompt[0].tolist()
        with torch.no_grad():
            ours, theirs = (model(prompt).logits for model in (trained.model, exported))
        assert torch.allclose(ours, theirs, atol=1e-3)
        output = exported.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12, min_new_tokens=1
        )
        expected = tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)
        reply = say(Conversation(trained, seed=0, sampling=GREEDY, messages=list(history)), ASK)
        assert reply.text == expected.strip()
