"""What a collection says: the plan first, a bar on a terminal or plain lines elsewhere, the result last."""

from __future__ import annotations

from robossl.bar import Bar


class Progress(Bar):
    """Counts episodes that are done with, dropped ones too, and their frames."""

    def __init__(self, num_episodes: int) -> None:
        super().__init__("collect", "episodes", num_episodes)
        self._total, self._done, self.num_frames = num_episodes, 0, 0

    def extend(self) -> None:
        """Count on one more episode."""
        self._total += 1

    def advance(self, num_frames: int) -> None:
        """Count one episode."""
        self._done += 1
        self.num_frames += num_frames
        if self.show(self._done, self._total):
            left_minutes = (self._total - self._done) * self.seconds / self._done / 60
            self.say(
                f"collect: {self._done} of {self._total} episodes, {self.num_frames / self.seconds:.0f} frames/s, "
                f"{left_minutes:.1f} min left"
            )
