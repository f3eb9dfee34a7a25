"""Liger's kernels are applied to the model at hand, its loss stays ours, and a missing compiler is one line."""

import sys

import pytest
from liger_kernels import apply_liger_kernels, has_liger
from transformers import LlamaConfig, LlamaForCausalLM

FAKE_OPS = """
class LigerSiLUMulFunction:
    @staticmethod
    def apply(gate, up):
        {body}
"""
FAKE_TRANSFORMERS = """
def _apply_liger_kernel_to_instance(model, **settings):
    model.applied = settings
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs a liger-kernel whose first kernel does this."""

    def write(body):
        package = tmp_path / "liger_kernel"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "ops.py").write_text(FAKE_OPS.format(body=body))
        (package / "transformers.py").write_text(FAKE_TRANSFORMERS)
        monkeypatch.syspath_prepend(tmp_path)

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "liger_kernel"]:
        del sys.modules[name]


@pytest.fixture
def model():
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, **shape))


def test_kernels_are_applied_without_the_losses(install, model):
    install("return gate * up")
    assert has_liger()
    assert apply_liger_kernels(model) is None
    assert model.applied == {"cross_entropy": False, "fused_linear_cross_entropy": False}


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ('RuntimeError("Failed to find C compiler.\\nPlease specify")', "Failed to find C compiler"),
        ('AssertionError("libcuda.so cannot found!\\nPlease make sure")', "libcuda.so cannot found!"),
    ],
)
def test_without_a_compiler_or_the_drivers_library_the_model_stays_as_it_is(install, model, failure, reason):
    """In the words of Triton."""
    install(f"raise {failure}")
    assert apply_liger_kernels(model) == f"Triton cannot compile Liger's kernels ({reason})"
    assert not hasattr(model, "applied")
