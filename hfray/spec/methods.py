"""How a model is tuned: all of it, or an adapter beside it. Frozen values, told apart by `name`; knows no PEFT."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from hfray.spec.fields import named
from hfray.types import Strict


class FullSpec(Strict):
    """Every weight is trained."""

    name: Literal["full"] = "full"
    """The method."""


class LoraSpec(Strict):
    """Two small matrices beside each chosen layer are trained, the model itself stays (Hu et al., 2021)."""

    name: Literal["lora"] = "lora"
    """The method."""
    r: int = Field(default=16, ge=1, le=4096)
    """The rank of the matrices."""
    alpha: float = Field(default=32, gt=0)
    """What is added is scaled by alpha / r."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Of the adapter's inputs."""
    target_modules: Literal["auto", "all-linear"] | tuple[Annotated[str, Field(min_length=1)], ...] = "auto"
    """Which layers: those that PEFT chooses for the architecture, all linear ones below the head, or a list of names
    such as [q_proj, v_proj]."""
    train_modules: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Modules that are trained whole and saved with the adapter; a new head always is."""
    rslora: bool = False
    """Scale by alpha / sqrt(r) (rank-stabilised LoRA)."""
    dora: bool = False
    """Train magnitudes apart from directions (DoRA); slower."""

    @field_validator("target_modules")
    @classmethod
    def _check_targets(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets:
            raise ValueError("name at least one module, or write auto")
        return targets


class QloraSpec(LoraSpec):
    """LoRA beside a model that is held in 4 bits (Dettmers et al., 2023)."""

    name: Literal["qlora"] = "qlora"  # type: ignore[assignment]  # another literal
    """The method."""
    quantization: Literal["nf4", "fp4"] = "nf4"
    """Format of the base model's weights."""
    double_quantization: bool = True
    """Quantise the scales too; saves another 0.4 bit per weight."""


MethodSpec = Annotated[Annotated[FullSpec | LoraSpec | QloraSpec, Field(discriminator="name")], BeforeValidator(named)]
"""Which method; a name alone takes its defaults."""
