"""The diffusion model: network, denoiser, loss and sampler meet at one contract, ``D(x, sigma, labels)``.

Nothing here knows of privacy.
"""
