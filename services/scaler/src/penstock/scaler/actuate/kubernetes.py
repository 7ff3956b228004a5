"""Kubernetes: the scale subresource of a Deployment or StatefulSet, through the official client
(extra `kubernetes`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.scaler.actuate.actuator import FleetStatus
from penstock.scaler.actuator_settings import KubernetesActuator
from penstock.service.program import CannotStart

REQUEST_TIMEOUT_S = 5.0


class KubernetesScale:
    """Reads and sets `spec.replicas` through the scale subresource; see `Actuator`.

    The pod's own termination grace and preStop hook drain it.

    Args:
        api: an AppsV1Api; None makes one from the pod's service account, else from the user's
            kubeconfig.
    """

    def __init__(self, config: KubernetesActuator, api: Any = None) -> None:
        self._config = config
        self._api = api if api is not None else _apps_api()

    async def status(self) -> FleetStatus:
        read = getattr(self._api, f"read_namespaced_{self._config.workload}")
        workload = await self._call(read, self._config.name, self._config.namespace)
        return FleetStatus(workload.spec.replicas or 0, workload.status.ready_replicas or 0)

    def on_demand_count(self, wanted: int) -> int:
        return wanted

    async def scale(self, wanted: int) -> None:
        patch = getattr(self._api, f"patch_namespaced_{self._config.workload}_scale")
        body = {"spec": {"replicas": wanted}}
        await self._call(patch, self._config.name, self._config.namespace, body)

    async def replace(self, instance: str, remaining_s: float) -> bool:
        """Return False: the controller replaces a pod by itself once its node drains."""
        return False

    async def close(self) -> None:
        return None

    async def _call(self, method: Any, *arguments: object) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return await asyncio.to_thread(method, *arguments, _request_timeout=REQUEST_TIMEOUT_S)
        except (ApiException, HTTPError) as error:
            status, reason = getattr(error, "status", ""), getattr(error, "reason", error)
            raise OSError(f"kubernetes: {status} {reason}") from error


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
            raise CannotStart(
                f"the kubernetes actuator has neither a service account nor a kubeconfig: {error}"
            ) from None
    return client.AppsV1Api()
