"""Kubernetes: the scale subresource of a Deployment or StatefulSet, through the official client
(extra `kubernetes`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.scaler.actuate.actuator import FleetStatus
from penstock.scaler.settings import KubernetesActuator
from penstock.service.program import CannotStart

ANSWER_S = 5.0


class KubernetesScale:
    """Reads and patches `spec.replicas` of the scale subresource; the pod's own termination grace
    and preStop hook drain it.

    Args:
        api: an AppsV1Api; None makes one from the pod's service account, else from the user's
            kubeconfig.
    """

    def __init__(self, config: KubernetesActuator, api: Any = None) -> None:
        self._config = config
        self._api = api if api is not None else _apps_api()

    async def fleet(self) -> FleetStatus:
        read = getattr(self._api, f"read_namespaced_{self._config.workload}")
        found = await self._ask(read, self._config.name, self._config.namespace)
        return FleetStatus(found.spec.replicas or 0, found.status.ready_replicas or 0)

    def on_demand(self, wanted: int) -> int:
        return wanted

    async def scale(self, wanted: int) -> None:
        patch = getattr(self._api, f"patch_namespaced_{self._config.workload}_scale")
        await self._ask(
            patch, self._config.name, self._config.namespace, {"spec": {"replicas": wanted}}
        )

    async def replace(self, instance: str, left_s: float) -> bool:
        """The controller replaces a pod by itself once its node drains; the engine drains it at the
        router.
        """
        return False

    async def close(self) -> None:
        return None

    async def _ask(self, method: Any, *words: object) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return await asyncio.to_thread(method, *words, _request_timeout=ANSWER_S)
        except (ApiException, HTTPError) as error:
            raise OSError(
                f"kubernetes: {getattr(error, 'status', '')} {getattr(error, 'reason', error)}"
            ) from error


def _apps_api() -> Any:
    try:
        from kubernetes import client, config
    except ImportError:
        raise CannotStart(
            "the kubernetes actuator needs the official client: install penstock-scaler[kubernetes]"
        ) from None
    try:
        config.load_incluster_config()
    except config.ConfigException:
        try:
            config.load_kube_config()
        except config.ConfigException as error:
            raise CannotStart(f"the kubernetes actuator finds no cluster: {error}") from None
    return client.AppsV1Api()
