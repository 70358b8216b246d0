"""A frozen teacher: an encoder that gives targets for distillation and never trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robossl.encoders.cards import teacher_record
from robossl.encoders.inference import FrameEncoder, TorchEncoder, load_encoder
from robossl.errors import InputError, reason

if TYPE_CHECKING:
    from robossl.encoders.encoder import Encoder, EncoderConfig


class FrozenTeacher:
    """An encoder from any address, in eval mode and without gradients.

    It is no `nn.Module`: the method that holds it neither trains nor saves it. An encoder in torch follows the device
    and the precision of its input. Any other encoder, such as an exported model, gets frames in uint8.

    Attributes:
        digest: The sha256, in hex, of the model file or of the weights.
        size: The height and width of its input, in pixels.
        record: What the card of a student says of it: name, digest, licences.
        dims: The number of channels of each output.

    Args:
        address: What `load_encoder` opens, such as `timm:NAME@FILE`, a run or an exported model.
        outputs: The outputs to return.
        size: The input size in pixels; None for the one on the card of the encoder.
        student: Its mean and std are those of the pixels that the teacher gets.

    Raises:
        InputError: there is no such encoder or output, or it does not take frames of this size.
        ResourceError: the weights cannot be downloaded.
    """

    def __init__(self, address: str, *, outputs: tuple[str, ...], size: int | None, student: EncoderConfig) -> None:
        with torch.random.fork_rng(devices=[]):  # the student's random weights must not depend on its teacher
            self._encode: FrameEncoder = load_encoder(address, outputs=outputs)
        card = self._encode.card
        self.address, self.outputs = address, outputs
        self.digest = card.model_sha256 or card.digest
        self.record = teacher_record(address, card)
        self.size = size or max(card.input.input_hw)
        both = (student.mean, student.std, card.input.mean, card.input.std)
        self._colours = torch.tensor(both, dtype=torch.float64).view(4, 3, 1, 1)  # mean and std: student's, own
        if isinstance(self._encode, TorchEncoder):
            module = self._encode.encoder.eval().requires_grad_(False)
            if sum(isinstance(each, nn.Conv2d) for each in module.modules()) > 1:
                module.to(memory_format=torch.channels_last)
        try:
            found = self(torch.zeros(1, 3, self.size, self.size))
        except Exception as error:  # timm's models raise errors of any type
            height, width = card.input.input_hw
            raise InputError(
                f"the teacher {address} takes no pictures of {self.size} px ({reason(error).rstrip('.')}); set "
                f"method.teacher_size to another size (its card has {height}x{width})"
            ) from error
        self.dims = {name: value.shape[1] for name, value in found.items()}

    def __deepcopy__(self, memo: object) -> FrozenTeacher:
        return self  # it never changes, and a session of onnxruntime cannot be copied

    @torch.no_grad()
    def __call__(self, pixels: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, "b ..."]]:
        """Return the outputs of pictures that are normalised with the student's mean and std."""
        self._colours = self._colours.to(pixels.device)
        mean, std, own_mean, own_std = self._colours.to(pixels.dtype)
        pictures = pixels * std + mean  # 0 to 1
        if not isinstance(self._encode, TorchEncoder):
            frames = (pictures * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
            found = self._encode(frames.cpu().numpy())
            return {name: torch.from_numpy(value).to(pixels) for name, value in found.items()}
        encoder: Encoder = self._encode.encoder
        weight = next(encoder.parameters())
        if (weight.device, weight.dtype) != (pixels.device, pixels.dtype):  # in the first step on a GPU
            encoder.to(pixels.device, pixels.dtype)
        features = encoder((pictures - own_mean) / own_std)
        return {name: getattr(features, name) for name in self.outputs}
