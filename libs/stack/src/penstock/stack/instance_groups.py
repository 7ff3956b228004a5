"""The sections `instances` and `upstreams` of the configuration file, and the instances of models
that `penstock models add` brought: what runs on this machine besides the services.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from penstock.onnx.card import BadModel, parse_card
from penstock.service.settings import BadConfig, Section, read_file
from pydantic import Field, RootModel, ValidationError, field_validator

ADDED_FILE = "instances.yaml"
"""In the home folder: written by `penstock models add`, of the same form as the section."""
NO_ACTUATOR = "dry_run"
"""The kind of actuator of a pool whose instances somebody else starts."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class InstanceGroup(Section):
    """Instances that serve the same models on this machine."""

    models: tuple[Name, ...] = Field(
        min_length=1, description="names of models below models/; the first is the default"
    )
    name: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$",
        description="instances are called NAME-1, NAME-2 and so on; empty: the first model's name",
    )
    count: int | None = Field(
        None,
        ge=0,
        le=64,
        description="instances; empty: those of the scaling pool of the first model, else 1",
    )
    compute_threads: int = Field(1, ge=1, description="tasks that one computes at the same time")
    memory_budget_bytes: int = Field(
        4 << 30, gt=0, description="bytes of all models that one instance has loaded"
    )

    @property
    def label(self) -> str:
        """The name of its instances without their numbers."""
        return self.name or re.sub(r"[^a-z0-9._-]", "-", self.models[0].lower())[:64]


class InstancesSection(RootModel[tuple[InstanceGroup, ...]]):
    """`instances:` of the file: a list of groups."""

    @field_validator("root")
    @classmethod
    def _check_names(cls, groups: tuple[InstanceGroup, ...]) -> tuple[InstanceGroup, ...]:
        labels = [group.label for group in groups]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ValueError(f"two groups are called {', '.join(repeated)}; give them a name")
        return groups


@dataclass(frozen=True)
class LocalPool:
    """A scaling pool whose instances nobody else starts: the supervisor follows the scaler."""

    min_instances: int
    max_instances: int

    def count(self, wanted: int | None, cores: int) -> int:
        """Instances to run: what the scaler wants, within the pool's bounds and, above its minimum,
        one for each core.

        Args:
            wanted: None before the scaler's first decision.
        """
        highest = max(self.min_instances, min(self.max_instances, cores))
        return min(max(self.min_instances, wanted or 0), highest)


@dataclass(frozen=True)
class LocalConfig:
    """What runs on this machine besides the services.

    Attributes:
        groups: None where the file has no section `instances`: the default model runs then.
        added: the groups of models that the user added.
        upstreams: each upstream's entry by its name.
        pools: scaling pools by model.
    """

    groups: tuple[InstanceGroup, ...] | None
    added: tuple[InstanceGroup, ...]
    upstreams: Mapping[str, Mapping[str, Any]]
    pools: Mapping[str, LocalPool]

    @property
    def all_groups(self) -> tuple[InstanceGroup, ...]:
        """The groups of the file, then the added ones that the file does not name as well."""
        own = self.groups or ()
        labels = {group.label for group in own}
        return (*own, *(group for group in self.added if group.label not in labels))


def read_local_config(config_file: Path, home: Path) -> LocalConfig:
    """Read what runs here.

    Raises:
        BadConfig: names every fault of the section and of the file of added models.
    """
    content = read_file(config_file)
    pools = (content.get("scaling") or {}).get("pools") or []
    servers = (content.get("upstreams") or {}).get("servers") or []
    groups = None
    if content.get("instances") is not None:
        groups = _groups(config_file, content["instances"])
    return LocalConfig(
        groups,
        added_groups(home),
        {str(server["name"]): server for server in servers},
        {str(pool["name"]): _pool(pool) for pool in pools if _is_local(pool)},
    )


def added_groups(home: Path) -> tuple[InstanceGroup, ...]:
    """The groups of added models; none where no model was added.

    Raises:
        BadConfig: the file is not what `penstock models add` writes.
    """
    path = home / ADDED_FILE
    return _groups(path, read_file(path).get("instances") or []) if path.exists() else ()


def model_problems(
    groups: Sequence[InstanceGroup], home: Path
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What keeps groups from being served, each with its keys below `instances`: models that are
    not in the repository, and more bytes of models than an instance may load.
    """
    for index, group in enumerate(groups):
        sizes = []
        for position, model in enumerate(group.models):
            try:
                sizes.append(model_bytes(home, model))
            except BadModel as error:
                yield (index, "models", position), str(error)
        if sum(sizes) > group.memory_budget_bytes:
            yield (
                (index, "models"),
                f"need {sum(sizes):,} bytes; memory_budget_bytes is {group.memory_budget_bytes:,}",
            )


def model_bytes(home: Path, model: str) -> int:
    """Bytes of the files of a model's newest version.

    Raises:
        BadModel: it is not there, or its card cannot be read.
    """
    folder = home / "models" / model
    versions = [path.parent for path in folder.glob("*/card.json")]
    if not versions:
        known = sorted(path.parents[1].name for path in home.glob("models/*/*/card.json"))
        raise BadModel(
            f"{model!r} is not in {folder.parent}; `penstock models add` brings a model; there are "
            f"{', '.join(dict.fromkeys(known)) or 'none'}"
        )
    newest = max(versions, key=lambda path: (len(path.name), path.name))
    return sum(file.size_bytes for file in parse_card(newest).files.values())


def _groups(path: Path, entries: object) -> tuple[InstanceGroup, ...]:
    try:
        return InstancesSection.model_validate(entries).root
    except ValidationError as error:
        raise BadConfig(
            [
                f"{path}: {'.'.join(['instances', *map(str, item['loc'])])}: {item['msg']}"
                for item in error.errors()
            ]
        ) from None


def _is_local(pool: Mapping[str, Any]) -> bool:
    kind = (pool.get("actuator") or {}).get("kind", NO_ACTUATOR)
    return kind == NO_ACTUATOR and not pool.get("dry_run")


def _pool(pool: Mapping[str, Any]) -> LocalPool:
    return LocalPool(int(pool.get("min_instances", 1)), int(pool.get("max_instances", 4)))
