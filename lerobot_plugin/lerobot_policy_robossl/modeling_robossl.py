"""The policies: lerobot's ACT and Diffusion Policy, with their vision backbone replaced by an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtyping import Float
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy, DiffusionRgbEncoder, SpatialSoftmax
from torch import Tensor, nn

from lerobot_policy_robossl.backbone import EncoderBackbone, check_weights, encoder_of
from lerobot_policy_robossl.configuration_robossl import RobosslActConfig, RobosslDiffusionConfig


class _NamedMap(EncoderBackbone):
    """A backbone that returns its feature map under the name that ACT reads."""

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> dict[str, Tensor]:  # type: ignore[override]
        return {"feature_map": super().forward(pixels)}


class RobosslActPolicy(ACTPolicy):
    """ACT on an encoder. Each cell of the feature map is a token; see `RobosslActConfig`.

    Args:
        config: The configuration; the policy records the encoder in it.
        weights_follow: Whether the weights are read from a saved policy next.

    Raises:
        InputError: there is no such encoder; see `encoder_of`.
    """

    config_class = RobosslActConfig
    name = "robossl_act"

    def __init__(self, config: RobosslActConfig, *, weights_follow: bool = False, **kwargs: Any) -> None:
        config.drop_true_state()
        super().__init__(config, **kwargs)
        if config.image_features:
            self.model.backbone = _NamedMap(encoder_of(config, weights_follow=weights_follow), config.tune)
            channels = self.model.backbone.shape[0]
            self.model.encoder_img_feat_input_proj = nn.Conv2d(channels, config.dim_model, kernel_size=1)

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Return the groups of weights that train; a frozen encoder has none."""
        return [group for group in super().get_optim_params() if group["params"]]

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> RobosslActPolicy:
        """Read a saved policy, encoder included. The encoder's source is not needed."""
        return _read(super().from_pretrained, pretrained_name_or_path, kwargs)


class RobosslDiffusionPolicy(DiffusionPolicy):
    """Diffusion Policy on an encoder. It sees keypoints of the feature map; see `RobosslDiffusionConfig`.

    Args:
        config: The configuration; the policy records the encoder in it.
        weights_follow: Whether the weights are read from a saved policy next.

    Raises:
        InputError: there is no such encoder; see `encoder_of`.
    """

    config_class = RobosslDiffusionConfig
    name = "robossl_diffusion"

    def __init__(self, config: RobosslDiffusionConfig, *, weights_follow: bool = False, **kwargs: Any) -> None:
        config.drop_true_state()
        super().__init__(config, **kwargs)
        if config.image_features:
            encoder = encoder_of(config, weights_follow=weights_follow)
            for part in self.diffusion.modules():
                if isinstance(part, DiffusionRgbEncoder):
                    part.backbone = EncoderBackbone(encoder, config.tune)
                    part.pool = SpatialSoftmax(part.backbone.shape, num_kp=config.spatial_softmax_num_keypoints)

    def get_optim_params(self) -> list[nn.Parameter]:
        """Return the weights that train."""
        return [weight for weight in super().get_optim_params() if weight.requires_grad]

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> RobosslDiffusionPolicy:
        """Read a saved policy, encoder included. The encoder's source is not needed."""
        return _read(super().from_pretrained, pretrained_name_or_path, kwargs)


def _read(read: Any, path: str | Path, kwargs: dict[str, Any]) -> Any:
    """Read a saved policy; every weight must be there, and an encoder that never trained must be the recorded one."""
    policy = read(path, **{"strict": True, **kwargs, "weights_follow": True})
    check_weights(policy.config, [part for part in policy.modules() if isinstance(part, EncoderBackbone)])
    return policy
