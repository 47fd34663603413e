"""The generative adversarial network: a generator of images and the discriminator that teaches it.

Nothing here knows of privacy.
"""
