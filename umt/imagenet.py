"""ImageNet's mean and standard deviation, red green blue, in units of the full range. No torch.

Every model here is fed frames normalised with them, the CLIP teacher too, as in the original.
"""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
