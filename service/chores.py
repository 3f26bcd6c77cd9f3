"""What the daemon does by itself again and again, from the time that its backend is open."""

import asyncio
import time
from collections.abc import Coroutine, Iterator

import structlog

from backends.errors import ContractError
from service import host_boot, image_cache, reclaim, thaws
from service.bound_verbs import BoundVerbs
from service.core import Core
from service.errands import Errand
from service.health import Health

_HEALTH_S = 0.2
_SETTLE_S = 5.0
log = structlog.get_logger()


class Chores:
    """None of them ends by itself, but for the one about the host's boot."""

    def __init__(self, core: Core, bound: BoundVerbs, health: Health) -> None:
        self._core = core
        self._bound = bound
        self._health = health
        self._settings = core.settings

    def all(self) -> Iterator[Coroutine[None, None, None]]:
        """Those that the settings ask for, not begun."""
        core, bound = self._core, self._bound
        yield self._report_health()
        yield self._sample()
        yield self._settle()
        yield core.consoles.trim()
        yield core.consoles.age()
        yield reclaim.reclaim(core.truth, self._errand("DestroyInstance", reclaim.CALLER))
        unquiesce = self._errand("UnquiesceInstance", thaws.CALLER)
        yield thaws.Thaws(core.truth, unquiesce).watch()
        boots = host_boot.HostBoots(core.state_dir.boot, resume=self._settings.resume_instances)
        resume = self._errand("ResumeInstanceOnHostBoot", host_boot.CALLER)
        yield boots.resume_after(core.truth, resume)
        if self._settings.image_cache_interval_s:
            manage = bound.errand(core, "ImageService", "ManageImageCache", image_cache.CALLER)
            interval_s = self._settings.image_cache_interval_s
            yield image_cache.age_images(core.operations, manage, interval_s=interval_s)
        if self._settings.rescue_timeout_s:
            yield bound.rescues.watch(timeout_s=self._settings.rescue_timeout_s)

    def _errand(self, rpc: str, caller: str) -> Errand:
        return self._bound.errand(self._core, "InstanceService", rpc, caller)

    async def _report_health(self) -> None:
        connected = None
        while True:
            if connected != self._core.reachable.is_set():
                connected = self._core.reachable.is_set()
                await self._health.report(connected=connected)
            await asyncio.sleep(_HEALTH_S)

    async def _settle(self) -> None:
        """Tells other hosts of migrations that have come to nothing while they were silent."""
        core, loop = self._core, asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(core.pools.jobs, core.backend.settle)
            await asyncio.sleep(_SETTLE_S)

    async def _sample(self) -> None:
        core, loop = self._core, asyncio.get_running_loop()
        while True:
            await core.reachable.wait()
            try:
                samples = await loop.run_in_executor(core.pools.reads, core.backend.sample)
                at_ns = time.time_ns()
                core.truth.sampled(samples, at_ns=at_ns)
                core.samples.take(samples, at_ns=at_ns)
                await self._bound.resources.sample()
            except ContractError as error:
                log.warning("counters not sampled", reason=str(error))
            await asyncio.sleep(self._settings.sample_interval_s)
