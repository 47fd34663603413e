"""Which files a configuration includes. Snakemake merges them over the default, and what was asked for over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from privimage.schema import ConfigError


def included(config: Mapping[str, Any], root: str | Path) -> list[Path]:
    """The files that `include` names, in order; their paths begin at the checkout's ``root``.

    Raises:
        ConfigError: if `include` is no list of files that are there, or one of them includes others itself.
    """
    named = config.get("include", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ConfigError(f"`include` is {named!r}; expected a list of files, such as [config/cifar10.yaml].")
    for name in named:
        try:
            held = yaml.safe_load((Path(root) / name).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"`include` names {name!r}, which cannot be read ({error.strerror}); write its path from the root of "
                "the checkout."
            ) from None
        except (yaml.YAMLError, ValueError):
            raise ConfigError(f"`include` names {name!r}, which is no YAML; name a configuration file.") from None
        if not isinstance(held, dict) or "include" in held:
            why = "includes others" if isinstance(held, dict) else "holds no settings"
            raise ConfigError(f"`include` names {name!r}, which {why}; name settings' files in the one that is run.")
    return [Path(root) / name for name in named]
