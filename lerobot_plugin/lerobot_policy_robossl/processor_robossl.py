"""What happens before and after the policies: lerobot's own processors, with frames left as they are."""

from lerobot.policies.act.processor_act import make_act_pre_post_processors as make_robossl_act_pre_post_processors
from lerobot.policies.diffusion.processor_diffusion import (
    make_diffusion_pre_post_processors as make_robossl_diffusion_pre_post_processors,
)

__all__ = ["make_robossl_act_pre_post_processors", "make_robossl_diffusion_pre_post_processors"]
