"""The training settings that the demo is known to work with."""

from typing import Any

DEMO_PRESET: dict[str, Any] = {
    "method": {"type": "lora", "rank": 16, "alpha": 32},
    "optim": {"learning_rate": 1e-3},
    "batch": {"effective_size": 8},
    "duration": {"epochs": 10},
}
"""For LoRA; QLoRA reaches the same with them."""
