"""What one method makes of a model's weights: bytes held, and bytes a token; only contract/memory.py calls it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from ftapp.contract.config import AdapterConfig, FullConfig, QloraConfig
from ftapp.contract.parameters import LAYER, Architecture, Weights, adapted, adapter_size

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a parameter: 4 bit, one 8-bit scale for 64, one fp32 scale for 256 of those (arXiv:2305.14314, §3)."""
TILE_TOKENS, TILE_VOCAB = 4096, 32768
"""Of the fused output head (trl/kernels/chunked_logprob.py, trl/trainer/utils.py in TRL 1.16)."""
TILE_COPIES_CPU = 8
"""Tiles alive at once in its backward pass without Triton."""
CONV1D = ("c_attn", "c_fc", "c_proj")
"""Stored with inputs first."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one method on one model, before anything is known about the batch."""

    weights: int
    trained: int
    """Trained parameters, all in fp32."""
    copies: int
    """16-bit copies of trained matrices, which autocast makes and keeps through the forward pass."""
    checkpoints: int
    """A token, all layers: the layers' inputs, which checkpointing keeps."""
    per_token: int
    """A token, all layers: what the forward pass keeps for the backward pass."""
    per_pair: int
    """Of every pair of tokens in a row, all layers: the mask that attention keeps."""
    matrices: int
    """All layers: weights that the forward pass makes and keeps, of experts with the adapter added and for DoRA."""
    working: int
    """A token, one layer: what its backward pass computes with beyond that."""
    largest: int
    """What is made of the largest matrix for a moment: it is dequantised, or DoRA takes its lengths."""
    layers: int
    hidden: int
    vocab: int
    tile: int
    """Bytes of a number in the head's tile."""
    tiles: int
    full: bool

    @property
    def layer_copies(self) -> int:
        """Those of one layer."""
        return self.copies // self.layers

    def kept(self, tokens: int, row: int) -> int:
        """Everything that the forward pass of all layers keeps."""
        return tokens * (self.per_token + row * self.per_pair) + self.matrices

    def layer(self, tokens: int, row: int) -> int:
        """What one layer keeps."""
        return self.kept(tokens, row) // self.layers + self.layer_copies

    def passing(self, tokens: int) -> int:
        """What a layer's backward pass holds for a moment."""
        return tokens * self.working + self.largest

    def head_forward(self, tokens: int) -> int:
        """A tile, and a slice of fp32 weights in 16 bit."""
        slice_ = min(self.vocab, TILE_VOCAB) * self.hidden * self.tile if self.full and self.tile == 2 else 0
        wide = TILE_VOCAB if self.tile == 2 else min(self.vocab, TILE_VOCAB)
        return min(tokens, TILE_TOKENS) * wide * self.tile * self.tiles + slice_

    def head_backward(self, tokens: int) -> int:
        """The same, and the gradients of the hidden states and, for full fine-tuning, of the head, in fp32."""
        return self.head_forward(tokens) + 4 * self.hidden * (tokens + (self.vocab if self.full else 0))


def footprint(
    groups: Sequence[Weights],
    facts: Architecture,
    stored: int,
    method: AdapterConfig | FullConfig,
    kind: Literal["cuda", "cpu"],
) -> Footprint:
    """The arithmetic of docs/memory.md, by the modules of transformers 5.23, peft 0.21 and TRL 1.16.

    On CUDA frozen weights and the computation are in 16 bit and trained weights in fp32, under autocast; on a CPU
    everything is in fp32.
    """
    full, cuda = isinstance(method, FullConfig), kind == "cuda"
    held = 2 if cuda and not full else 4
    matrices = [g for g in groups if g.kind in ("linear", "experts", "router")]
    linear = sum(g.total for g in groups if g.kind == "linear")
    total = sum(g.total for g in groups)
    quantised = isinstance(method, QloraConfig)
    if facts.quantised and not full:
        weights = stored
    elif quantised:
        weights = int(linear * NF4) + (total - linear) * held
    else:
        weights = total * held
    trained = total if isinstance(method, FullConfig) else sum(adapter_size(g, method, facts) for g in groups)
    cast = sum(g.total for g in matrices) if full else trained
    layers = facts.layers or max((len(g.names) for g in matrices), default=1)
    embedding = max((g.shape for g in groups if g.kind in ("embedding", "head")), key=prod, default=(1, 1))
    hidden = facts.hidden or embedding[-1]
    return Footprint(
        weights=weights,
        trained=trained,
        copies=2 * cast if cuda else 0,
        checkpoints=layers * hidden * held + 12 * hidden,
        per_token=_per_token(groups, facts, method, cuda, layers, hidden) + 12 * hidden,
        per_pair=layers * (2 if cuda else 4),
        matrices=_matrices(groups, facts, method, cuda),
        working=(8 if cuda else 12) * max(_intermediate(facts, hidden), hidden),
        largest=_largest(groups, facts, method, cuda),
        layers=layers,
        hidden=hidden,
        vocab=facts.vocab or embedding[0],
        tile=2 if cuda else 4,
        tiles=1 if cuda else TILE_COPIES_CPU,
        full=full,
    )


def _per_token(
    groups: Sequence[Weights],
    facts: Architecture,
    method: AdapterConfig | FullConfig,
    cuda: bool,
    layers: int,
    hidden: int,
) -> int:
    """What autograd saves a token in all layers without checkpointing.

    Norms: their input in fp32 and, if trained, the normalised one. Linear layers: their input if they or their adapter
    are trained; under autocast every adapter makes its own 16-bit copy (peft casts the input to fp32 first); so does
    dropout, with a mask. DoRA: what the matrix and what the adapter gives, for the gradient of the trained lengths.
    Attention: query, key and value repeated to all heads (as with padding), output, log-sum. MLP: gate, up and their
    product.
    """
    full, size = isinstance(method, FullConfig), 2 if cuda else 4
    query, key = facts.heads * facts.head_dim or hidden, facts.kv_heads * facts.head_dim or hidden
    inner = _intermediate(facts, hidden)
    saved = 0
    for group in groups:
        if not LAYER.search(f"{group.names[0]}.") or "vision" in group.names[0]:
            continue
        count = len(group.names)
        if group.kind == "norm":
            width = query if group.leaf.startswith("q_") else key if group.leaf.startswith("k_") else group.shape[0]
            normalised = (2 if width != hidden and cuda else 4) if full else 0
            saved += count * width * (4 + normalised)
        elif group.kind == "linear":
            inputs = group.shape[0] if group.leaf in CONV1D else group.shape[1]
            learns = count if isinstance(method, FullConfig) else adapted(group, method, facts)
            shared = inputs == query and group.leaf in ("o_proj", "c_proj", "out_proj", "dense")
            if not cuda:  # without casts, layers that read the same input share it
                shared = shared or group.leaf in ("k_proj", "v_proj", "up_proj")
            dropped = isinstance(method, AdapterConfig) and method.dropout > 0
            saved += 0 if shared and (full or not cuda) and not dropped else learns * inputs * size
            saved += learns * inputs * (1 if cuda else 4) if dropped else 0
            if isinstance(method, AdapterConfig):
                saved += learns * method.rank * size
                saved += learns * (prod(group.shape) // inputs) * 2 * size if method.dora else 0
    gated = any(group.leaf in ("gate_proj", "gate_up_proj", "w1") for group in groups)
    routed = facts.experts_per_token * (3 * inner + 2 * hidden) if facts.experts else 0
    mlp = routed or inner * (3 if gated else 5)
    return saved + layers * (size * (4 * query + mlp) + 4 * facts.heads)


def _intermediate(facts: Architecture, hidden: int) -> int:
    return (facts.expert_intermediate if facts.experts else facts.intermediate) or 4 * hidden


def _matrices(groups: Sequence[Weights], facts: Architecture, method: AdapterConfig | FullConfig, cuda: bool) -> int:
    """Bytes of the weights that are new tensors in every layer.

    Experts that an adapter is added to; and with DoRA under dropout, which multiplies the matrix once more, its copy in
    the precision of the computation.
    """
    if isinstance(method, FullConfig):
        return 0
    size, copied = 2 if cuda else 4, cuda or isinstance(method, QloraConfig)
    kinds = {"experts", "linear"} if method.dora and method.dropout and copied else {"experts"}
    reached = ((g, adapted(g, method, facts)) for g in groups if g.kind in kinds)
    return sum((g.total if g.kind == "experts" else count * prod(g.shape)) * size for g, count in reached if count)


def _largest(groups: Sequence[Weights], facts: Architecture, method: AdapterConfig | FullConfig, cuda: bool) -> int:
    """Bytes that one linear layer makes of its matrix for a moment.

    DoRA multiplies an identity by the adapter (`get_lora_weight` in peft/tuners/lora/dora.py), then has the adapter's
    matrix, that times the scale, the base's and the sum of both in fp32, and still the identity as autograd keeps it.
    """
    if isinstance(method, FullConfig):
        return 0
    size, quantised, most = 2 if cuda else 4, isinstance(method, QloraConfig), 0
    for group in (g for g in groups if g.kind == "linear"):
        matrix = prod(group.shape)
        most = max(most, matrix * size if quantised else 0)
        if method.dora and adapted(group, method, facts):
            inputs = group.shape[0] if group.leaf in CONV1D else group.shape[1]
            identity = inputs * inputs * 4 + (inputs * inputs * size if cuda else 0) + matrix * size
            lengths = inputs * inputs * size + matrix * 4 * (4 if cuda or quantised else 3)
            most = max(most, identity, lengths)
    return most
