"""Names for the arrays that functions exchange, with the shapes that jaxtyping checks.

Within one call, axes of the same name have the same size. The array's class is not checked, since
that would import torch, which takes a second.
"""

from typing import Any

from jaxtyping import Float, Int64, UInt8

Scalar = Float[Any, ""]
PerImage = Float[Any, " batch"]  # a number for each image
PerDimension = Float[Any, " latent"]
PerPair = Float[Any, " pairs"]
AnyShape = Float[Any, "*#shape"]  # several of them broadcast

Codes = Float[Any, "batch latent"]  # mu, logvar, z or noise
Samples = Float[Any, "samples latent"]  # any number of z
ManyCodes = Float[Any, "samples batch latent"]  # many codes for each image
AnyCodes = Float[Any, "*#batch latent"]  # any of these; they broadcast

StoredImages = UInt8[Any, "batch channels h w"]  # 0 to 255
Labels = Int64[Any, " batch"]
Images = Float[Any, "batch channels h w"]  # as models see them
BinaryImages = Float[Any, "batch 1 h w"]  # or their pixels' logits
ColourImages = Float[Any, "batch 3 h w"]
Maps = Float[Any, "batch c h w"]  # feature maps
OtherMaps = Float[Any, "batch c2 h w"]  # of another number of channels
ResizedMaps = Float[Any, "batch c2 h2 w2"]  # also of another size
