"""Names for the arrays that go from hand to hand, with their shapes as jaxtyping checks them.

They ask for the shape and not for torch's class, since importing torch takes a second.
"""

from typing import Any

from jaxtyping import Float

Scalar = Float[Any, ""]
PerImage = Float[Any, " batch"]  # a number for each image
Codes = Float[Any, "batch latent"]  # mu, logvar, z or noise
Images = Float[Any, "batch channels height width"]
