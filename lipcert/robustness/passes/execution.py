"""What the rounding of the deployed pass takes of margins that hold on a whole ball.

At every x' of the ball, a margin that the deployed pass computes is at least the real one minus `Deployed.loss`. So
where a lower bound of the real margins on the ball is above that, the deployed pass gives every x' its class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float, round_up
from lipcert.robustness.passes.forward import ForwardPass


@dataclass(frozen=True)
class Execution:
    """The deployed pass around samples.

    Attributes:
        run: a pass with a model of the deployed one. dilation: ||d||_2 <= dilation * ||d|| in the norm of the balls.
    """

    run: ForwardPass
    dilation: float

    def loss(self, images: npt.NDArray[np.float32] | Float, eps: Float) -> Float:
        """Return (N,) upper bounds of the error of any margin on the balls; infinite where the pass may overflow.

        images: (N, *input_shape) centres. eps: (N,) radii.
        """
        deployed = self.run(images).deployed
        assert deployed is not None
        return deployed.loss(round_up(self.dilation * eps, 2))
