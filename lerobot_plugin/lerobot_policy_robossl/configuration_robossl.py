"""Configurations of the policies: those of lerobot, and which encoder they see with.

lerobot finds the classes of `modeling_robossl` and the functions of `processor_robossl` by the names in this module.
"""

# No `from __future__ import annotations`: lerobot's command line reads the types of the fields.

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.utils.constants import OBS_ENV_STATE

from robossl.errors import InputError

TUNES = ("frozen", "last", "all")
# Settings of lerobot's own vision backbone, which the encoder replaces.
REPLACED = ("vision_backbone", "pretrained_backbone_weights", "replace_final_stride_with_dilation", "use_group_norm")


@dataclass
class EncoderSettings:
    """What both configurations add to those of lerobot.

    Args:
        encoder: The encoder, as `robossl.load_encoder` takes it: a run, an encoder folder, timm:NAME or pip:NAME.
        tune: Train nothing of the encoder (frozen), its last stage, or all. Its batch-norms keep their statistics.
        use_environment_state: Give the policy `observation.environment_state`, the true state of a simulator, too.
        encoder_record: Name, digest and configuration of the encoder; the policy writes them.
        pretrained_backbone_weights: Unused.

    Raises:
        InputError: `tune` is unknown, frames would be normalised twice, or a setting of the replaced backbone is
            changed.
    """

    encoder: str = ""
    tune: str = "frozen"
    use_environment_state: bool = False
    encoder_record: dict[str, Any] | None = None
    pretrained_backbone_weights: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        if self.tune not in TUNES:
            raise InputError(f"unknown tune {self.tune!r}; choose {', '.join(TUNES)}")
        mode = self.normalization_mapping.get("VISUAL")  # type: ignore[attr-defined]
        if mode is not NormalizationMode.IDENTITY:
            raise InputError(
                f"normalization_mapping of VISUAL is {mode}, but the encoder normalises its frames itself; "
                "set it to IDENTITY"
            )
        for name in REPLACED:
            default = getattr(type(self), name, None)
            if getattr(self, name, default) != default:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, but the encoder replaces lerobot's vision backbone; "
                    "leave it out"
                )

    def drop_true_state(self) -> None:
        """Remove the simulator's true state from the inputs, unless the policy shall see it."""
        if not self.use_environment_state and self.input_features:
            self.input_features = {k: v for k, v in self.input_features.items() if k != OBS_ENV_STATE}


def _act_modes() -> dict[str, NormalizationMode]:
    modes = {"STATE": NormalizationMode.MEAN_STD, "ACTION": NormalizationMode.MEAN_STD}
    return {"VISUAL": NormalizationMode.IDENTITY, **modes}


def _diffusion_modes() -> dict[str, NormalizationMode]:
    modes = {"STATE": NormalizationMode.MIN_MAX, "ACTION": NormalizationMode.MIN_MAX}
    return {"VISUAL": NormalizationMode.IDENTITY, **modes}


@PreTrainedConfig.register_subclass("robossl_act")
@dataclass
class RobosslActConfig(EncoderSettings, ACTConfig):
    """ACT (arXiv:2304.13705) whose image tokens are the cells of an encoder's feature map.

    Args:
        normalization_mapping: As in lerobot; frames stay as they are, for the encoder normalises them.
    """

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_act_modes)


@PreTrainedConfig.register_subclass("robossl_diffusion")
@dataclass
class RobosslDiffusionConfig(EncoderSettings, DiffusionConfig):
    """Diffusion Policy (arXiv:2303.04137) that sees keypoints of an encoder's feature map.

    Args:
        normalization_mapping: As in lerobot; frames stay as they are, for the encoder normalises them.
    """

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_diffusion_modes)
