"""What a stack consists of: each process with its variables, in the order in which they start.

Plain values; nothing is started here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.service.store import EmbeddedStore
from penstock.stack.process import Program, python_module


@dataclass(frozen=True)
class StackPlan:
    """The choices of one stack: addresses by name, folders, secrets, and how many inference
    instances.
    """

    addresses: Mapping[str, str]
    home: Path
    sockets: Path
    config_file: Path
    token: str
    redis_url: str = ""
    instances: int = 2
    profile: str = "development"
    api_key: str = ""
    upstream_name: str = ""
    """The upstream of the file that a process is started before; empty for none."""

    def stages(self) -> tuple[tuple[Program, ...], ...]:
        """Programs that may start together, stage after stage."""
        stages: list[tuple[Program, ...]] = [] if self.redis_url else [tuple(self._redis())]
        stages.append(
            (self._service("telemetry", "telemetry", prometheus_listen=self.addresses["metrics"]),)
        )
        stages.append(
            (self._service("batcher", "batcher"), self.limiter(), self._service("cache", "cache"))
        )
        deciders = {
            "limiter_address": self.addresses["limiter"],
            "cache_address": self.addresses["cache"],
        }
        stages.append((self._router(**deciders),))
        instances = (self.inference(number) for number in range(1, self.instances + 1))
        before = (self.upstream(self.upstream_name),) if self.upstream_name else ()
        stages.append((*instances, *before, self.scaler(), self.console()))
        return tuple(stages)

    def console(self) -> Program:
        """The page over all services; it asks whoever is there and says who is not."""
        asked = {
            f"{name}_address": self.addresses[name]
            for name in ("telemetry", "router", "batcher", "limiter", "cache", "scaler")
        }
        page = self._service("console", "console", **asked, api_key=self.api_key)
        return replace(page, address=f"http://{self.addresses['console']}/")

    def router_and_batcher(self) -> tuple[Program, ...]:
        """Router and batcher alone, without Redis and telemetry: what a call cannot do without."""
        alone = {"redis_url": "", "otlp_endpoint": ""}
        return (self._service("batcher", "batcher", **alone), self._router(**alone))

    def request_path(self, *, traced: bool) -> tuple[tuple[Program, ...], ...]:
        """All that decides about a call, as processes: Redis, cache, limiter, batcher, router; with
        telemetry behind them or without.
        """
        silent = {} if traced else {"otlp_endpoint": ""}
        deciders = {
            "limiter_address": self.addresses["limiter"],
            "cache_address": self.addresses["cache"],
        }
        first = (
            self._service("batcher", "batcher", **silent),
            self._service("limiter", "limiter", **silent),
        )
        telemetry = [
            (self._service("telemetry", "telemetry", prometheus_listen=self.addresses["metrics"]),)
        ]
        return (
            tuple(self._redis()),
            *(telemetry if traced else []),
            (*first, self._service("cache", "cache", **silent)),
            (self._router(**deciders, **silent),),
        )

    def batcher_and_instance(self) -> tuple[Program, ...]:
        """A batcher and one instance that nobody has registered, for measuring the two alone."""
        alone = {"redis_url": "", "otlp_endpoint": ""}
        instance = self.inference(1, router_address="", **alone)
        return (self._service("batcher", "batcher", **alone), instance)

    def _router(self, **changes: str) -> Program:
        return self._service(
            "router", "router", batcher_address=self.addresses["batcher"], **changes
        )

    def limiter(self) -> Program:
        """The limiter, with the operators' door beside it; the internal token is the operator's
        secret on a developer's machine.
        """
        operators = {
            "admin_listen": self.addresses["limiter-admin"],
            "admin_tokens": f"developer={self.token}",
        }
        return self._service("limiter", "limiter", **operators)

    def scaler(self) -> Program:
        """The scaler; its pools stand in the file's `scaling` section, and run here, beside the
        instances that are always there.
        """
        asked = {
            f"{name}_address": self.addresses[name] for name in ("batcher", "router", "telemetry")
        }
        asked |= {
            "local_pool": "all-MiniLM-L6-v2",
            "local_command": "{python} -u -m penstock.inference_onnx_quantized",
            "local_beside": str(self.instances),
        }
        return self._service("scaler", "scaler", **asked)

    def upstream(self, name: str, **changes: str) -> Program:
        """The service before one upstream of the file."""
        known = {"upstream": name, "router_address": self.addresses["router"], **changes}
        return self._service("inference-upstream", "inference_upstream", **known)

    def inference(self, number: int, **changes: str) -> Program:
        """One instance of the default model."""
        name = f"inference-{number}"
        return self._service(
            name,
            "inference_onnx_quantized",
            **{
                "instance_id": name,
                "router_address": self.addresses["router"],
                "compute_threads": "1",
                **changes,
            },
        )

    @property
    def ledger_url(self) -> str:
        """Redis that never forgets: registry, budgets, jobs."""
        return self.redis_url or self._embedded("ledger").url

    @property
    def cache_url(self) -> str:
        """Redis that is bounded: cached answers."""
        return self.redis_url or self._embedded("cache").url

    def _redis(self) -> list[Program]:
        return [
            Program(
                f"redis-{kind}",
                tuple(self._embedded(kind).command()),
                {},
                f"redis+{self._embedded(kind).url}",
            )
            for kind in ("ledger", "cache")
        ]

    def _embedded(self, kind: str) -> EmbeddedStore:
        folder = self.home / "redis" / kind
        folder.mkdir(parents=True, exist_ok=True)
        return EmbeddedStore(
            folder.resolve(),
            self.sockets / f"{kind}.sock",
            "ledger" if kind == "ledger" else "cache",
        )

    def _service(self, name: str, module: str, **changes: str) -> Program:
        own = {
            "listen": self.addresses[name],
            "profile": self.profile,
            "config_file": str(self.config_file),
            "redis_url": self.cache_url if name == "cache" else self.ledger_url,
            "otlp_endpoint": "" if name == "telemetry" else self.addresses["telemetry"],
            "internal_token": self.token,
            "home": str(self.home),
            **changes,
        }
        env = {f"PENSTOCK_{key.upper()}": value for key, value in own.items()}
        # One thread for each math library: the processes share the cores, and the services have
        # their own pools.
        threads = {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        return Program(
            name, python_module(f"penstock.{module}"), {**threads, **env}, self.addresses[name]
        )
