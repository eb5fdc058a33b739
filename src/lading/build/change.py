"""Dockerfile instructions on an image's config alone, for `commit --change` and `import --change`. Runs nothing."""

from __future__ import annotations

from lading.base.errors import Invalid
from lading.build import metadata, variables
from lading.build.dockerfile import instructions as ins
from lading.build.dockerfile.parser import parse_trigger
from lading.image.config import ContainerConfig


def changed(config: ContainerConfig, changes: tuple[str, ...]) -> ContainerConfig:
    """The config after every instruction; Invalid for one that does more than change it."""
    scope = variables.Scope(variables.Globals("\\", {}, {}), env=metadata.environment(config))
    for text in changes:
        match parse_trigger(text):
            case ins.Env() as one:
                config, _ = metadata.env(one, config, scope)
            case ins.Label() as one:
                config, _ = metadata.label(one, config, scope)
            case ins.User() as one:
                config, _ = metadata.user(one, config, scope)
            case ins.Workdir() as one:
                config, _ = metadata.workdir(one, config, scope)
            case ins.Stopsignal() as one:
                config, _ = metadata.stopsignal(one, config, scope)
            case ins.Expose() as one:
                config, _ = metadata.expose(one, config, scope)
            case ins.Volume() as one:
                config, _ = metadata.volume(one, config, scope)
            case ins.Cmd() as one:
                config, _ = metadata.cmd(one, config)
            case ins.Entrypoint() as one:
                config, _ = metadata.entrypoint(one, config, True)
            case ins.Healthcheck() as one:
                config, _ = metadata.healthcheck(one, config)
            case ins.Onbuild() as one:
                config, _ = metadata.onbuild(one, config)
            case other:
                raise Invalid(
                    f"{text[:80]!r} cannot be a change",
                    why=f"{type(other).__name__.upper()} does more than change the image's config.",
                )
    return config
