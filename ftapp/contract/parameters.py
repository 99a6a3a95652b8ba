"""Tensor shapes + config.json → the loaded model's weights, and how many are trained; pure, anyone may call it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from ftapp.contract.base import Contract
from ftapp.contract.config import AdapterConfig, FullConfig

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name, as the weights file has it → its shape."""

Kind = Literal["linear", "embedding", "head", "experts", "router", "norm", "other"]

ALL_LINEAR = "all-linear"
"""The target modules that are every linear layer but the output head."""
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|embed_in|wte|wpe|word_embeddings|word_embeddings_layernorm|shared|embed_positions"
    r"|position_embeddings?|patch_embedding|token_type_embeddings)\."
)
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_projection)\.")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
EXPERT = re.compile(r"^(.*\.experts)\.\d+\.(\w+)\.weight$")
ROUTER = re.compile(r"(^|\.)(mlp|block_sparse_moe|feed_forward|moe)\.(gate|router)\.(weight|wg\.weight)$")
BUFFER = re.compile(r"(^|\.)(masked_bias|inv_freq|position_ids|e_score_correction_bias)$")
TIED_BY_DEFAULT = re.compile(r"gpt2|gemma|cohere|bloom|opt$|gpt_bigcode|starcoder2|mpt")
"""Model types whose config.json may leave `tie_word_embeddings` out and mean true."""

MIXTRAL_LIKE = frozenset({"mixtral", "minimax", "minimax_m2"})
# fmt: off
QWEN_LIKE = frozenset({
    "afmoe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe", "glm4_moe", "glm4_moe_lite",
    "glm_moe_dsa", "glm4v_moe", "longcat_flash", "solar_open", "mellum", "qwen3_moe", "beam", "qwen3_omni_moe",
    "qwen3_omni_moe_thinker", "qwen3_omni_moe_text", "qwen3_next", "hunyuan_v1_moe", "flex_olmo", "olmoe",
    "exaone_moe", "cohere2_moe",
})
# fmt: on
"""Model types where PEFT 0.21's all-linear reaches the fused experts and the router (`_convert_peft_config_moe` in
peft/utils/transformers_weight_conversion.py); elsewhere the experts keep their weights. A test compares the lists."""
RENAMED = frozenset(
    {"axk2", "bailing_hybrid", "deepseek_v4", "hrm_text", "hy_v4", "inkling2_text", "kimi_linear", "lfm3"}
)
"""Model types whose files call linear layers otherwise than transformers 5.23 does (its conversion_mapping.py)."""
FUSED_NAMES = {"mixtral": {"gate", "w1", "w2", "w3"}, "qwen": {"gate", "gate_proj", "up_proj", "down_proj"}}


class Parameters(Contract):
    """How many numbers a model has and how many of them are trained."""

    total: int
    """Of the base model."""
    trainable: int
    """Of the adapter, or the whole model for full fine-tuning."""


class Architecture(Contract):
    """What config.json says about the text model; 0 where it says nothing."""

    model_type: str = ""
    layers: int = 0
    hidden: int = 0
    intermediate: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    vocab: int = 0
    context: int = 0
    """`max_position_embeddings`."""
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    tied: bool | None = None
    """Whether the output head is the embedding; None if config.json does not say."""
    quantised: bool = False
    """The files hold weights that are quantised already."""


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The facts in a parsed config.json; those of the text model where there are several."""
    inner = config.get("text_config") or config.get("llm_config")
    text: Mapping[str, Any] = {**config, **inner} if isinstance(inner, Mapping) else config

    def number(*names: str) -> int:
        found = (text.get(name) for name in names)
        return next((int(value) for value in found if isinstance(value, int) and not isinstance(value, bool)), 0)

    hidden, heads = number("hidden_size", "n_embd", "d_model"), number("num_attention_heads", "n_head", "n_heads")
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return Architecture(
        model_type=str(text.get("model_type", "")),
        layers=number("num_hidden_layers", "n_layer", "n_layers"),
        hidden=hidden,
        intermediate=number("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * hidden,
        heads=heads,
        kv_heads=number("num_key_value_heads") or heads,
        head_dim=number("head_dim") or (hidden // heads if heads else 0),
        vocab=number("vocab_size"),
        context=number("max_position_embeddings", "n_positions"),
        experts=number("num_experts", "num_local_experts", "n_routed_experts"),
        experts_per_token=number("num_experts_per_tok", "moe_k"),
        expert_intermediate=number("moe_intermediate_size") or number("intermediate_size"),
        tied=tied if isinstance(tied, bool) else None,
        quantised="quantization_config" in config,
    )


@dataclass(frozen=True)
class Weights:
    """Weights that differ in their layer or expert only."""

    kind: Kind
    shape: tuple[int, ...]
    names: tuple[str, ...]
    """Of their modules, as the file has them."""

    @property
    def leaf(self) -> str:
        """The last part of the module's name."""
        return self.names[0].rsplit(".", 1)[-1]

    @property
    def total(self) -> int:
        """Numbers in all of them."""
        return len(self.names) * prod(self.shape)


def weights(shapes: Shapes, facts: Architecture) -> list[Weights]:
    """The file's tensors as the loaded model has them: no buffers, and a tied head only once.

    transformers 5 fuses a layer's experts into one tensor that is no `nn.Linear`, whichever way the file has them.
    """
    tied = facts.tied if facts.tied is not None else bool(TIED_BY_DEFAULT.search(facts.model_type))
    embedded = any(EMBEDDING.search(name) for name in shapes)
    groups: dict[tuple[Kind, str, tuple[int, ...]], list[str]] = {}
    for name, shape in shapes.items():
        if BUFFER.search(name) or (name.endswith("attn.bias") and len(shape) == 4):
            continue
        kind = _kind(name, shape, facts)
        if kind == "head" and tied and embedded:
            continue
        module = name.removesuffix(".weight")
        groups.setdefault((kind, re.sub(r"\.\d+(?=\.)", ".*", name), shape), []).append(module)
    return [Weights(kind, shape, tuple(names)) for (kind, _, shape), names in groups.items()]


def _kind(name: str, shape: tuple[int, ...], facts: Architecture) -> Kind:
    if EXPERT.match(name) or (len(shape) == 3 and ".experts." in name):
        return "experts"
    if EMBEDDING.search(name):
        return "embedding"
    if HEAD.search(name):
        return "head"
    if facts.experts and ROUTER.search(name):
        return "router"
    if len(shape) == 2 and name.endswith(".weight"):
        return "linear"
    return "norm" if len(shape) == 1 and name.endswith(".weight") else "other"


def count_parameters(groups: Sequence[Weights], method: AdapterConfig | FullConfig, facts: Architecture) -> Parameters:
    """Total and trainable parameters, exact for what `weights` knows; LoRA adds `adapter_size`."""
    total = sum(group.total for group in groups)
    if isinstance(method, FullConfig):
        return Parameters(total=total, trainable=total)
    return Parameters(total=total, trainable=sum(adapter_size(group, method, facts) for group in groups))


def adapter_size(group: Weights, method: AdapterConfig, facts: Architecture) -> int:
    """Parameters that LoRA adds: rank × (inputs + outputs) a matrix (arXiv:2106.09685, §4.1).

    DoRA adds a length for each output (arXiv:2402.09353). Fused experts have a rank of their own in every expert,
    and twice the rank where gate and up are one tensor
    (`ParamWrapper` in peft/tuners/lora/layer.py and `_convert_peft_config_moe`).
    """
    count = adapted(group, method, facts)
    if not count:
        return 0
    if group.kind != "experts":
        outputs = group.shape[1 if facts.model_type == "gpt2" else 0]  # whose layers are written the other way round
        return count * (method.rank * sum(group.shape) + (outputs if method.dora else 0))
    if len(group.shape) == 3:
        fused = 2 if group.leaf == "gate_up_proj" else 1
        return count * method.rank * fused * group.shape[0] * sum(group.shape[1:])
    outputs, inputs = group.shape
    return count * method.rank * (inputs + outputs * (1 if group.leaf in ("down_proj", "w2") else 2))


def adapted(group: Weights, method: AdapterConfig, facts: Architecture) -> int:
    """How many of the matrices get an adapter."""
    family = _family(facts)
    every, wanted = method.target_modules == ALL_LINEAR, targets(method)
    if group.kind in ("experts", "router"):
        named = every or group.leaf in wanted or (group.leaf == "gate_up_proj" and "gate_proj" in wanted)
        return len(group.names) if family and named else 0
    if family and group.leaf in FUSED_NAMES[family]:
        return 0  # PEFT turns these names into those of the experts, so dense and shared ones are left out
    if every:
        return len(group.names) if group.kind == "linear" else 0
    if len(group.shape) != 2 or group.kind in ("norm", "other"):
        return 0
    return sum(any(_is_called(name, target) for target in wanted) for name in group.names)


def targets(method: AdapterConfig) -> list[str]:
    """The names of the target modules, as PEFT gets them."""
    return [name.strip() for name in method.target_modules.split(",") if name.strip()]


def _is_called(module: str, target: str) -> bool:
    """PEFT's rule, the end of a module's name; before the layers the file may have another name than the model."""
    if layer := LAYER.search(target):
        target = target[layer.start() :].lstrip(".")
    return module == target or module.endswith(f".{target}") or target.endswith(f".{module}")


def target_problem(groups: Sequence[Weights], method: AdapterConfig | FullConfig, facts: Architecture) -> str:
    """Why these target modules cannot be trained in this model, and what to choose; empty if they can.

    Nothing is said of names where the files do not tell those of the model: quantised ones, and those of RENAMED.
    """
    if isinstance(method, FullConfig):
        return ""
    names = targets(method)
    if not names:
        return f"names no module; choose {ALL_LINEAR}"
    if heads := [name for name in names if HEAD.search(f"{name}.")]:
        return (
            f"{heads[0]} is the output head: the loss reads its weights directly, so an adapter there would learn "
            "nothing; leave it out"
        )
    if facts.quantised or facts.model_type in RENAMED:
        return ""
    every = method.model_copy(update={"target_modules": ALL_LINEAR})
    reached = [group for group in groups if adapted(group, every, facts)]
    there = {group.leaf for group in reached if group.kind == "linear"}
    if any(group.kind != "linear" for group in reached):
        there |= FUSED_NAMES[_family(facts)]
    if not there:
        return "LoRA finds no linear layer in this model; choose full fine-tuning"
    if names == [ALL_LINEAR]:
        return ""
    if ALL_LINEAR in names:
        return f"{ALL_LINEAR} stands alone, without other names"
    if unknown := [name for name in names if not _reaches(name, groups, method, facts)]:
        return f"there is no {', no '.join(unknown)} to adapt in this model; there are {', '.join(sorted(there))}"
    return ""


def _reaches(name: str, groups: Sequence[Weights], method: AdapterConfig, facts: Architecture) -> bool:
    """Whether PEFT would find a module of this name; convolutions are not counted, but taken.

    Of experts and routers the last part counts: transformers puts them elsewhere than the files do.
    """
    alone, fused = method.model_copy(update={"target_modules": name}), FUSED_NAMES.get(_family(facts), set())
    return any(
        name.rsplit(".", 1)[-1] in fused
        if group.kind in ("experts", "router")
        else adapted(group, alone, facts)
        or (group.kind == "other" and len(group.shape) > 2 and any(_is_called(one, name) for one in group.names))
        for group in groups
    )


def _family(facts: Architecture) -> str:
    return "mixtral" if facts.model_type in MIXTRAL_LIKE else "qwen" if facts.model_type in QWEN_LIKE else ""
