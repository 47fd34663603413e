"""The table of methods: the public data that each pretrains on, what it trains, and what its releases contain.

A method is a row. Ablations are further rows, given in the configuration's ``methods`` section.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from privimage.setting import setting

Policy = Literal["query", "random", "whole", "none"]
POLICIES = {  # in words
    "query": "the public classes that the noisy query chose",
    "random": "public classes chosen at random",
    "whole": "the whole public set under its own labels",
    "none": "no public images",
}
OVERRIDABLE = ("select", "pretrain", "finetune", "sample")  # sections of what comes before a release


@dataclass(frozen=True)
class Method:
    """One row: a policy of public data, the noisy query it reads, if any, and what is trained."""

    policy: Policy = setting(
        "query",
        "Public data to pretrain on: the classes that the noisy query selects, as many classes at random, "
        "the whole public set, or none.",
    )
    query: str | None = setting(None, "Row of `queries` that the policy `query` reads and pays for.")
    generator: str = setting("diffusion", "What is trained and drawn from: a module of `privimage/generators`.")
    settings: dict[str, Any] | None = setting(
        None, f"Overrides of the sections {', '.join(f'`{name}`' for name in OVERRIDABLE)}, for this method alone."
    )

    @property
    def releases(self) -> tuple[str, ...]:
        """The private mechanisms whose outputs a release of this method contains, in order."""
        return ("query", "finetune") if self.policy == "query" else ("finetune",)


METHODS: dict[str, Method] = {
    "privimage": Method(policy="query", query="default"),  # PrivImage+D, Li et al., USENIX Security 2024
    # The whole public set, then the selection, in as many steps: the breadth of `pdp`, the labels of `privimage`.
    "privimage-2stage": Method(policy="query", query="default", settings={"pretrain": {"whole_fraction": 0.5}}),
    "random": Method(policy="random"),  # ablation: as many public classes, chosen at random
    "pdp": Method(policy="whole"),  # PDP-Diffusion, Ghalebikesabi et al. 2023: the whole public set
    "pe": Method(policy="whole", generator="evolution"),  # Private Evolution (DPSDA), Lin et al., ICLR 2024
    "scratch": Method(  # DPDM, Dockhorn et al., TMLR 2023: no public data
        policy="none", settings={"finetune": {"damped_directions": 0}}
    ),
    "privimage-g": Method(policy="query", query="default", generator="gan"),  # PrivImage+G, Li et al. 2024
    "dpgan-p": Method(policy="whole", generator="gan"),  # DPGAN pretrained on the whole public set, Li et al. 2024
    "dpgan": Method(policy="none", generator="gan"),  # DPGAN, Xie et al. 2018: no public data
    "dp-ldm": Method(  # Liu et al. 2023: latent diffusion, of which attention and conditioning are trained privately
        policy="whole", generator="latent", settings={"finetune": {"trained": "attention"}}
    ),
    "dp-lora": Method(  # Tsai et al., ICCV 2025: the same, of which low-rank adapters are
        policy="whole", generator="latent", settings={"finetune": {"trained": "lora"}}
    ),
}
