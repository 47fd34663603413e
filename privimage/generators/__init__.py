"""What a method trains and draws images from: one module a kind of generator, found by its name.

A generator's module imports without torch, since the configuration asks it for its settings; its functions import what
they need. It has:

    VERSION                  raised when a change of the code changes results: what was made before is then made anew
    PRETRAINED, PRIVATE      kinds of weights: what pretraining makes, and what private training makes; the second is no
                             other generator's, since ``sample`` finds the generator by it
    HAS_LOSS                 whether its model is a diffusion model of pixels, which attacks and audits look into
    GUIDED                   whether guidance acts on what it draws
    READS_CLASSIFIER         whether private training looks at images through the public classifier
    IN_SEVERAL_PROCESSES     whether its stages may be computed by several processes
    Settings                 a dataclass with ``pretrain``, ``finetune`` or both, in place of the sections of that name,
                             or None
    event(settings)          the private mechanism, with noise multiplier 1
    words(settings)          what the card of a release says of its model, by the settings of private training
    pretrain(task)           what pretraining makes of public images
    prepare(task)            the start of private training, after every check that can fail; nothing is charged yet
    finetune(start, task, mechanism, release)    what private training makes, and its curve
    assist(start, task)      what a process that does not lead does meanwhile
    drawer(weights, settings, compute, pretrained)    what images are drawn from; the model that private training
                             started from is there if guidance asks for it
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from privimage.errors import UserError
from privimage.generators import diffusion, evolution, gan, latent
from privimage.generators.words import Words
from privimage.schema import build
from privimage.settings import FinetuneSettings

GENERATORS: dict[str, ModuleType] = {
    "diffusion": diffusion,  # EDM, in pixels
    "gan": gan,  # a generator, which a discriminator teaches
    "evolution": evolution,  # what EDM draws, and sensitive images vote on
    "latent": latent,  # EDM, in an autoencoder's latents
}

DRAWN_BY = {generator.PRIVATE: generator for generator in GENERATORS.values()}  # by the kind of weights


def settings_of(generator: str, stage: str, shared: type) -> type:
    """The settings of a stage for that generator: its own, or those that the stage's section has, ``shared``."""
    own = GENERATORS[generator].Settings
    return type(getattr(own(), stage, shared())) if own else shared


def words_of(kind: str, training: Mapping[str, Any]) -> Words:
    """What the card says of weights of that kind, which private training by these settings made.

    Raises:
        ConfigError: if they are no settings of what makes that kind.
    """
    (name,) = [name for name, generator in GENERATORS.items() if kind == generator.PRIVATE]
    settings = build(settings_of(name, "finetune", FinetuneSettings), training, "the settings of training")
    return GENERATORS[name].words(settings)


def check_processes(generator: str, num_processes: int) -> None:
    """Return if the generator's stages can be computed by so many processes.

    Raises:
        UserError: if they cannot.
    """
    if num_processes > 1 and not GENERATORS[generator].IN_SEVERAL_PROCESSES:
        raise UserError(
            f"the generator `{generator}` was started in {num_processes} processes and computes in one; leave out "
            "`processes`, `nodes` and all but one `gpu` for its methods."
        )


def facts_of(generator: str) -> dict[str, object]:
    """What a fingerprint holds of a generator: nothing of the first version of the first one, which had none."""
    version = GENERATORS[generator].VERSION
    return {} if (generator, version) == ("diffusion", 1) else {"generator": generator, "generator_version": version}
