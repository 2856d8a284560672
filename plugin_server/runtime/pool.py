"""All sandboxes of this worker: made for a project's first event, watched, moved when an install misbehaves, ended when idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from plugin_server.model.errors import HookMissing
from plugin_server.model.origin import Origin
from plugin_server.model.project import Install, Isolation, Project
from plugin_server.runtime.fork_server import ForkServer
from plugin_server.runtime.route import OneChain, Place, Relay, Route, Spread
from plugin_server.runtime.sandbox import Sandbox, SandboxServices
from plugin_server.runtime.strikes import STRIKES, Strikes
from plugin_server.runtime.watch import TICK_SECONDS
from plugin_server.runtime.watchdog import watch
from plugin_server.runtime.work import HostCalls, InvocationResult, RunEffects, SandboxReport, Work

_EVICT_SECONDS: Final = 1.0
_TEAR_DOWN_SECONDS: Final = 5.0
"""For teardownPlugin of all apps of a project together"""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Tenant:
    """A project that has, or had, events here."""

    project: Project
    route: Route | None = None
    held: list[Work[Any]] = field(default_factory=list)
    """Events that wait while the route is being replaced"""
    replacing: asyncio.Task[None] | None = None
    apart: set[int] = field(default_factory=set)
    """Installs that have a sandbox of their own, whatever the project's plan"""


class SandboxPool:
    """Hands each project's events to its sandboxes, and watches them all."""

    def __init__(
        self,
        host_calls: HostCalls,
        make_effects: Callable[[Project, Origin], RunEffects],
        report: SandboxReport,
        library_version: str,
        record_bytes: int,
        *,
        fork_server: ForkServer | None = None,
        owns_fork_server: bool = True,
        is_traced: Callable[[], bool] = lambda: False,
        max_sandboxes: int = 200,
        shared_memory_bytes: int | None = None,
    ) -> None:
        """`max_sandboxes` processes are kept; beyond it, those idle longest are ended.

        A fork server that the pool does not own is started before it and stopped after it by whoever made it.

        `shared_memory_bytes` is for the sandbox of the projects that share one; None takes the limit of the first of them.
        """
        self._fork_server = fork_server or ForkServer()
        self._owns_fork_server = owns_fork_server
        self._report = report
        self._services = SandboxServices(
            self._fork_server.spawn,
            host_calls,
            make_effects,
            report,
            library_version,
            record_bytes,
            is_traced,
            on_kill=self._killed_by,
        )
        self._max_sandboxes = max_sandboxes
        self._shared_memory_bytes = shared_memory_bytes
        self._tenants: dict[int, _Tenant] = {}
        self._shared: Sandbox | None = None
        self._strikes = Strikes()
        self._tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        """Start the fork server and the watchdog. Raises SandboxUnavailable, or ConfigurationError without seccomp."""
        if self._owns_fork_server:
            await self._fork_server.start()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(watch(lambda: self.sandboxes), name="sandbox-watchdog"),
            loop.create_task(self._evict_forever(), name="sandbox-eviction"),
        ]

    async def stop(self) -> None:
        """Let apps clean up, briefly, and end all sandboxes."""
        tenants = tuple(self._tenants.values())
        replacing = [tenant.replacing for tenant in tenants if tenant.replacing is not None]
        for task in replacing:
            task.cancel()
        await asyncio.gather(*replacing, return_exceptions=True)
        await asyncio.gather(*(self._tear_down(tenant) for tenant in tenants))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(sandbox.close() for sandbox in self.sandboxes))
        if self._owns_fork_server:
            await self._fork_server.stop()

    def submit(self, project: Project, works: Sequence[Work[Any]]) -> None:
        """Run a project's chain on these events; each sink is told of each event once, in any order."""
        tenant = self._tenants.get(project.id)
        if tenant is None:
            tenant = self._tenants[project.id] = _Tenant(project)
        if tenant.replacing is not None:
            tenant.held.extend(works)
        else:
            if tenant.route is None:
                tenant.route = self._make_route(project, tenant.apart)
            tenant.route.submit(works)

    async def load(self, project: Project) -> None:
        """Returns when all of the project's apps are loaded and set up, or failed to be."""
        self.submit(project, ())
        while (replacing := self._tenants[project.id].replacing) is not None:
            await asyncio.wait([replacing])
            self.submit(project, ())
        route = self._tenants[project.id].route
        assert route is not None
        await asyncio.gather(*(place.sandbox.loaded(place.chain) for place in route.places))

    async def invoke(
        self,
        project: Project,
        install_id: int,
        hook: str,
        arguments: bytes,
        effects: RunEffects,
        *,
        max_captures: int | None = None,
    ) -> InvocationResult:
        """Call one hook of an install with these arguments, a JSON list. Waits for the apps to be loaded, and for a change of route.

        Raises HookMissing when the app, as it is loaded, has no such hook or does not run. See Sandbox.invoke.
        """
        place = await self._place_of(project, install_id)
        if hook not in place.chain.hooks(install_id):
            raise HookMissing(f"install {install_id} has no {hook}, or does not run")
        return await place.sandbox.invoke(place.chain, install_id, hook, arguments, effects, max_captures=max_captures)

    async def hooks(self, project: Project) -> Mapping[int, frozenset[str]]:
        """The hooks of each install that works. Loads the apps if need be."""
        await self.load(project)
        route = self._tenants[project.id].route
        places = route.places if route is not None else ()
        return {install.id: place.chain.hooks(install.id) for place in places for install in place.chain.installs}

    async def exports(self, project: Project) -> Mapping[int, frozenset[str]]:
        """The hooks that each install's app has, whether or not it could be set up. Loads the apps if need be."""
        await self.load(project)
        route = self._tenants[project.id].route
        places = route.places if route is not None else ()
        return {install.id: place.chain.exports(install.id) for place in places for install in place.chain.installs}

    async def _place_of(self, project: Project, install_id: int) -> Place:
        while True:
            tenant = self._tenants.get(project.id)
            route = tenant.route if tenant is not None and tenant.replacing is None else None
            if route is None or not all(place.chain.ready for place in route.places):
                await self.load(project)
                route = self._tenants[project.id].route
            places = route.places if route is not None else ()
            mine = [place for place in places if install_id in place.chain.bounds.installs]
            if mine:
                return min(mine, key=lambda place: place.sandbox.in_flight)
            if route is not None:
                raise HookMissing(f"project {project.id} has no install {install_id}")

    @property
    def confinement(self) -> str:
        """What confines the sandboxes, for the operator. After `start`."""
        confinement = self._fork_server.confinement
        return confinement.describe() if confinement is not None else "not tried yet"

    @property
    def sandboxes(self) -> tuple[Sandbox, ...]:
        """Each once, whether or not it has a process."""
        places = (place for tenant in self._tenants.values() if tenant.route for place in tenant.route.places)
        return tuple(dict.fromkeys([place.sandbox for place in places] + ([self._shared] if self._shared else [])))

    def sandboxes_of(self, project_id: int) -> tuple[Sandbox, ...]:
        """Those that a project's events go through."""
        tenant = self._tenants.get(project_id)
        return tuple(place.sandbox for place in tenant.route.places) if tenant and tenant.route else ()

    # Routes

    def _make_route(self, project: Project, moved: set[int]) -> Route:
        installs = project.installs
        apart = {install.id for install in installs if install.id in moved}
        if project.sandbox.isolation is Isolation.INSTALL:
            apart = {install.id for install in installs}
        if apart and len(installs) > 1:
            return self._make_relay(project, apart)
        if project.sandbox.isolation is Isolation.SHARED and not apart:
            return OneChain(self._place(self._shared_sandbox(project), project, installs))
        places = [self._place(self._new_sandbox(project), project, installs) for _ in range(project.sandbox.processes)]
        return OneChain(places[0]) if len(places) == 1 else Spread(places)

    def _make_relay(self, project: Project, apart: set[int]) -> Relay:
        """Neighbours that are not set apart make one chain; all such chains are in the same sandbox."""
        segments: list[list[Install]] = []
        for install in project.installs:
            if segments and install.id not in apart and segments[-1][-1].id not in apart:
                segments[-1].append(install)
            else:
                segments.append([install])
        together: Sandbox | None = None
        places: list[Place] = []
        for segment in segments:
            if segment[0].id in apart:
                sandbox = self._new_sandbox(project)
            elif project.sandbox.isolation is Isolation.SHARED:
                sandbox = self._shared_sandbox(project)
            else:
                sandbox = together = together or self._new_sandbox(project)
            places.append(self._place(sandbox, project, segment, in_relay=True))
        return Relay(project, places)

    def _place(
        self, sandbox: Sandbox, project: Project, installs: Sequence[Install], *, in_relay: bool = False
    ) -> Place:
        return Place(sandbox, sandbox.add_chain(project, installs, opened=in_relay, whole=in_relay))

    def _new_sandbox(self, project: Project) -> Sandbox:
        return Sandbox(project.limits.memory_bytes, self._services)

    def _shared_sandbox(self, project: Project) -> Sandbox:
        if self._shared is None:
            self._shared = Sandbox(self._shared_memory_bytes or project.limits.memory_bytes, self._services)
        return self._shared

    def _killed_by(self, project: Project, install_id: int) -> None:
        """An install cost a sandbox; one that does so again and again gets one of its own."""
        struck_out = self._strikes.add(project.id, install_id, time.monotonic())
        tenant = self._tenants.get(project.id)
        if not struck_out or tenant is None or install_id in tenant.apart:
            return
        tenant.apart.add(install_id)
        _log.warning("install_moved", project_id=project.id, install_id=install_id, kills=STRIKES)
        self._report.moved(project, install_id)
        if len(project.installs) > 1 or project.sandbox.isolation is Isolation.SHARED:
            self._replace(tenant)

    def _replace(self, tenant: _Tenant) -> None:
        """End a project's route when its work is done; what comes meanwhile waits for the next one, in order."""
        if tenant.route is not None and tenant.replacing is None:
            replacing = self._end_route(tenant, tenant.route)
            tenant.replacing = asyncio.get_running_loop().create_task(replacing, name="sandbox-replace")

    async def _end_route(self, tenant: _Tenant, route: Route) -> None:
        while any(place.sandbox.holds(place.chain) for place in route.places):  # noqa: ASYNC110 - rare, and brief
            await asyncio.sleep(TICK_SECONDS)
        try:
            await self._tear_down(tenant)
            await self._release(route)
        except Exception:  # noqa: BLE001 - the project's events must find their way whatever apps do on theirs out
            _log.exception("sandbox_not_torn_down", project_id=tenant.project.id)
        tenant.route, tenant.replacing = None, None
        held, tenant.held = tenant.held, []
        if held:
            self.submit(tenant.project, held)

    async def _tear_down(self, tenant: _Tenant) -> None:
        route = tenant.route
        if route is None:
            return
        places = [place for place in route.places if place.sandbox.pid is not None]
        try:
            async with asyncio.timeout(_TEAR_DOWN_SECONDS):
                await asyncio.gather(*(place.sandbox.tear_down(place.chain) for place in places))
        except TimeoutError:
            _log.warning("teardown_not_finished", project_id=tenant.project.id, seconds=_TEAR_DOWN_SECONDS)

    async def _release(self, route: Route) -> None:
        for place in route.places:
            place.sandbox.remove_chain(place.chain)
            if not place.sandbox.chains and place.sandbox is not self._shared:
                await place.sandbox.close()

    # Watching

    async def _evict_forever(self) -> None:
        while True:
            await asyncio.sleep(_EVICT_SECONDS)
            self._evict()

    def _evict(self) -> None:
        """End the sandboxes that have been idle longest, as many as there are too many."""
        alive = [sandbox for sandbox in self.sandboxes if sandbox.alive]
        surplus = len(alive) - self._max_sandboxes
        if surplus <= 0:
            return
        idle = [
            tenant
            for tenant in self._tenants.values()
            if tenant.route is not None
            and tenant.replacing is None
            and not any(place.sandbox.busy or place.sandbox is self._shared for place in tenant.route.places)
        ]
        for tenant in sorted(idle, key=_last_used):
            if surplus <= 0:
                break
            assert tenant.route is not None
            surplus -= sum(place.sandbox.alive for place in tenant.route.places)
            self._replace(tenant)


def _last_used(tenant: _Tenant) -> float:
    assert tenant.route is not None
    return max(place.sandbox.last_used for place in tenant.route.places)
