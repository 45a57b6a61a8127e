"""The demo itself: start farmers, store a tree and a large file, kill farmers, read everything back, let audits and
repair make it whole (`demo_heal`), kill as many again, and compare.

Everything is real: processes, sockets, files, contracts, receipts. What is measured is said in `docs/performance.md`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stook.assembly import Renter, create_renter_home, farmer_status, open_renter, usage
from stook.cli.demo_chain import DemoChain
from stook.cli.demo_heal import Audited, Repairs, audit, health, named
from stook.cli.demo_pay import pay, reckon
from stook.cli.demo_picture import Picture
from stook.cli.local_network import LocalNetwork
from stook.cli.output import human_duration, human_rate, human_size, plural
from stook.config import NodeSettings, RentSettings
from stook.errors import EnvironmentFault, NotEnoughError, UserError
from stook.ids import NodeId
from stook.renter.files import FileSink, FileSource
from stook.renter.ports import Item, Progress

BUCKET = "demo"
GENERATED_NAME = "generated.bin"
TREE_PREFIX = "tree/"
_BLOCK_BYTES = 1 << 20
_MEET_DEADLINE_SECONDS = 60.0
_MEET_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What the person asked for. `k` and `n` follow from farmers and kills unless given."""

    farmers: int
    kill: int
    path: Path
    size_bytes: int
    k: int
    n: int

    @classmethod
    def of(cls, *, farmers: int, kill: int, path: Path, size_bytes: int, code: tuple[int, int] | None) -> DemoPlan:
        """Fill in the code. Raises `UserError` when the killing could lose data, or there is nothing to kill."""
        if farmers < 1 or kill < 0 or kill >= farmers:
            raise UserError("--farmers is at least 1 and --kill less than --farmers")
        if code is None:
            n = farmers - kill
            k = min(n - kill, farmers - 2 * kill)
            if k < 1:
                raise UserError(
                    f"of {farmers} farmers with {kill} killed no code survives a second killing; name one with --code"
                )
        else:
            k, n = code
        if n > farmers:
            raise UserError(f"--code asks for {n} farmers, one for each shard, and there are {farmers}")
        if n - k < kill:
            raise UserError(f"killing {kill} farmers may lose data coded {k}/{n}; kill fewer, or use a wider code")
        return cls(farmers, kill, path, size_bytes, k, n)

    @property
    def kills_twice(self) -> bool:
        """Whether as many again may die once everything is repaired."""
        return self.kill > 0 and self.farmers - 2 * self.kill >= self.k

    @property
    def whole_again(self) -> bool:
        """Whether enough farmers are left for all n shards of a segment."""
        return self.farmers - self.kill >= self.n


@dataclass(slots=True)
class Figures:
    """What was measured; `as_json` is the last line of ``stook demo --json``."""

    ok: bool = False
    files: int = 0
    bytes: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    def as_json(self, plan: DemoPlan) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "ok": self.ok,
            "farmers": plan.farmers,
            "killed": plan.kill,
            "k": plan.k,
            "n": plan.n,
            "files": self.files,
            "bytes": self.bytes,
            **self.values,
        }


@dataclass(frozen=True, slots=True)
class _Span:
    """Time and CPU that a step took."""

    seconds: float
    cpu_seconds: float


class Demo:
    """One run. `root` is a fresh directory for everything it writes."""

    def __init__(
        self, plan: DemoPlan, root: Path, network: LocalNetwork, picture: Picture, chain: DemoChain | None = None
    ) -> None:
        self.plan = plan
        self.figures = Figures()
        self._root = root
        self._network = network
        self._picture = picture
        self._chain = chain
        self._generated = root / "source" / GENERATED_NAME
        self._wrong: list[str] = []
        """Everything that is not as it should be, in words."""
        self._names: dict[bytes, str] = {}
        self._farmer_peak_mib = 0.0
        self._tree: list[tuple[str, Path, os.stat_result]] = []

    async def run(self) -> Figures:
        """The whole story. Raises `StookError` when a step fails; a comparison that fails leaves ``ok`` false."""
        began = time.monotonic()
        await self._start()
        home = self._root / "renter"
        create_renter_home(
            home,
            NodeSettings(seeds=self._network.seeds, lan=self._network.lan, max_nodes_per_network=0, log_level="error"),
            RentSettings(
                # Repair begins with the first shard that is missed, and waits for nobody: a demo has no half a day.
                code=f"{self.plan.k}/{self.plan.n}/{self.plan.n}/{self.plan.n}",
                spread="farmers",
                repair_patience="0 s",
            ),
            phrase=self._chain.phrase if self._chain is not None else None,
            pay=self._chain.renter_settings if self._chain is not None else None,
        )
        if self._chain is not None:
            await self._fund(home)
        # It is told of nobody but one seed, or hears beacons: for it they are a way into the overlay and no more.
        async with open_renter(home, refresh=False) as renter:
            await self._meet(renter)
            await renter.client.make_bucket(BUCKET)
            await self._store(renter)
            await self._download(renter, "download", "every farmer alive")
            await self._audit(renter, "Asking every farmer to prove what it holds")
            await self._pay(renter, "Paying for proofs and bytes")
            await self._note_farmers()
            await self._kill()
            await self._download(renter, "degraded_download", f"{plural(self.plan.kill, 'farmer')} dead")
            await self._read_tree(renter, "back")
            await self._heal(renter)
            await self._pay(renter, "Paying again, those that made the shards anew")
            if self.plan.kills_twice:
                await self._kill()
                await self._download(renter, "last_download", f"{plural(2 * self.plan.kill, 'farmer')} dead")
                await self._read_tree(renter, "back again")
            await self._pay(renter, "Paying what is still owed")
            await self._redeem(renter)
        await self._reckon()
        await self._compare()
        await self._note_farmers()
        self.figures.values |= {
            "client_peak_rss_mib": round(usage()["peak_rss_mib"], 1),
            "farmer_peak_rss_mib": round(self._farmer_peak_mib, 1),
            "seconds": round(time.monotonic() - began, 2),
        }
        return self.figures

    # --- before ------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._picture.begin(f"Starting {plural(self.plan.farmers, 'farmer')}, a process each")
        began = time.monotonic()
        await asyncio.to_thread(self._network.start)
        self._names = {bytes.fromhex(farmer.uri[-40:]): farmer.name for farmer in self._network.farmers}
        self._picture.end(f"each with its own key, disk and port, in {human_duration(time.monotonic() - began)}")
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        """Write the generated file and look through the tree, before anything is timed."""
        self._generated.parent.mkdir(parents=True)
        with self._generated.open("wb") as file:
            left = self.plan.size_bytes
            while left:
                left -= file.write(os.urandom(min(left, _BLOCK_BYTES)))
        self._tree = list(regular_files(self.plan.path))
        self.figures.files = len(self._tree) + 1
        tree_bytes = sum(status.st_size for _, _, status in self._tree)
        self.figures.bytes = tree_bytes + self.plan.size_bytes
        self.figures.values |= {"tree_files": len(self._tree), "tree_bytes": tree_bytes}

    async def _meet(self, renter: Renter) -> None:
        """Look for farmers in the overlay, from one seed, until all are found."""
        self._picture.begin("Finding them through the overlay, from one seed")
        began = time.monotonic()
        while await renter.agent.discover() < self.plan.farmers:
            if time.monotonic() > began + _MEET_DEADLINE_SECONDS:
                raise NotEnoughError(f"only {len(renter.agent.candidates())} of {self.plan.farmers} farmers were found")
            await asyncio.sleep(_MEET_PAUSE_SECONDS)
        seconds = time.monotonic() - began
        self.figures.values["discovery_seconds"] = round(seconds, 3)
        self._picture.end(f"all {self.plan.farmers} in {human_duration(seconds)}")

    # --- steps -------------------------------------------------------------------------------------------------------

    def _watch(self) -> Callable[[Progress], None]:
        def watcher(progress: Progress) -> None:
            self._picture.advance(
                accepted=progress.bytes_accepted,
                done=progress.bytes_durable,
                farmer_shards={self._names.get(node, "?"): count for node, count in progress.farmer_shards.items()},
            )

        return watcher

    async def _cpu(self) -> float:
        statuses = await self._statuses()
        self._farmer_peak_mib = max(
            [self._farmer_peak_mib, *(status["peak_rss_mib"] for status in statuses.values())],
        )
        return float(usage()["cpu_seconds"] + sum(status["cpu_seconds"] for status in statuses.values()))

    async def _statuses(self) -> Mapping[str, dict[str, Any]]:
        living = [farmer for farmer in self._network.farmers if farmer.alive]
        answers = await asyncio.gather(*(farmer_status(farmer.home) for farmer in living))
        return {farmer.name: answer for farmer, answer in zip(living, answers, strict=True)}

    async def _note_farmers(self) -> None:
        await self._cpu()

    async def _store(self, renter: Renter) -> None:
        client, values = renter.client, self.figures.values
        tree_bytes = values["tree_bytes"]
        self._picture.begin(f"Storing {plural(len(self._tree), 'file')} of {self.plan.path}", tree_bytes)
        began = time.monotonic()
        items = (
            Item(TREE_PREFIX + name, _opener(path), status.st_size, status.st_mtime_ns // 1_000_000)
            for name, path, status in self._tree
        )
        await client.put_many(BUCKET, items, on_progress=self._watch(), bytes_total=tree_bytes)
        await client.settle()
        seconds = time.monotonic() - began
        values["tree_upload_ops_s"] = round(len(self._tree) / seconds, 1)
        self._picture.end(f"{human_size(tree_bytes)} in bundles, {len(self._tree) / seconds:,.0f} files a second")

        size = self.plan.size_bytes
        self._picture.begin(f"Storing one generated file of {human_size(size)}", size)
        cpu, began = await self._cpu(), time.monotonic()
        item = Item(GENERATED_NAME, _opener(self._generated), size)
        await client.put(BUCKET, item, on_progress=self._watch())
        durable_seconds = time.monotonic() - began
        await client.settle()
        span = _Span(time.monotonic() - began, await self._cpu() - cpu)
        values |= {
            "upload_mb_s": round(size / 1e6 / span.seconds, 1),
            "durable_mb_s": round(size / 1e6 / durable_seconds, 1),
            "upload_cpu_s_per_gb": round(span.cpu_seconds / size * 1e9, 2) if size else 0.0,
        }
        status = await client.status()
        if status.agent.segments_below_n:
            raise NotEnoughError(f"{status.agent.segments_below_n} segments have fewer than {self.plan.n} shards")
        self._picture.end(
            f"{human_rate(size / span.seconds)}; every segment has {self.plan.n} receipted shards, "
            f"any {self.plan.k} of which bring it back"
        )

    async def _download(self, renter: Renter, key: str, when: str) -> None:
        size, values = self.plan.size_bytes, self.figures.values
        self._picture.begin(f"Reading the generated file back, {when}", size)
        cpu, began = await self._cpu(), time.monotonic()
        target = self._root / "back" / f"{key}.bin"
        await renter.client.get(BUCKET, GENERATED_NAME, FileSink(target), on_progress=self._watch())
        span = _Span(time.monotonic() - began, await self._cpu() - cpu)
        values[f"{key}_mb_s"] = round(size / 1e6 / span.seconds, 1)
        values[f"{key}_cpu_s_per_gb"] = round(span.cpu_seconds / size * 1e9, 2) if size else 0.0
        self._picture.end(human_rate(size / span.seconds))

    async def _kill(self) -> None:
        # The last ones: the first is everybody's seed, and a network that lost its seed is another story.
        living = [farmer for farmer in self._network.farmers if farmer.alive]
        doomed = living[len(living) - self.plan.kill :]
        again = " more" if len(living) < self.plan.farmers else ""
        self._picture.begin(f"Killing {plural(len(doomed), 'farmer')}{again} (kill -9)")
        await asyncio.to_thread(self._network.kill, doomed)
        self._picture.dead([farmer.name for farmer in doomed])
        self._picture.end(", ".join(farmer.name for farmer in doomed) or "nobody")

    async def _audit(self, renter: Renter, title: str) -> Audited:
        self._picture.begin(title)
        audited = await audit(renter, [NodeId(node) for node in self._names])
        self.figures.values |= {
            "audits_passed": audited.passed,
            "audits_failed": audited.failed,
            "audit_bytes_per_shard": round(audited.bytes_per_shard),
        }
        silent, liars = named(audited.silent, self._names), named(audited.liars, self._names)
        told = [f"{audited.passed:,} proofs so far, {human_size(round(audited.bytes_per_shard))} each"]
        told += [f"no answer from {', '.join(silent)}"] if silent else []
        told += [f"caught lying: {', '.join(liars)}"] if liars else []
        self._picture.end("; ".join(told))
        return audited

    async def _heal(self, renter: Renter) -> None:
        audited = await self._audit(renter, "Asking again: audits name who is gone")
        dead = {farmer.name for farmer in self._network.farmers if not farmer.alive}
        dead &= set(named(audited.holders, self._names))
        if set(named(audited.silent, self._names)) != dead or audited.liars:
            self._wrong.append(
                f"audits named {named(audited.silent | audited.liars, self._names)}, dead are {sorted(dead)}"
            )
        lacking = (await renter.client.status()).agent
        share = 1.0 - health(lacking)
        self._picture.begin(f"Repairing {plural(round(share * lacking.segments), 'segment')}, from ciphertext")
        began, repairs = time.monotonic(), Repairs(renter)
        await repairs.run(lambda whole: self._picture.share(max(0.0, whole - 1.0 + share) / share if share else 1.0))
        seconds = time.monotonic() - began
        await renter.agent.auditor.audit_all()
        whole = health((await renter.client.status()).agent)
        self.figures.values |= {
            "repaired_shards": repairs.shards,
            "repair_seconds": round(seconds, 2),
            "health_after_repair": round(whole, 4),
        }
        said = f"{plural(repairs.shards, 'shard')} made again in {human_duration(seconds)}; "
        if whole < 1.0 and self.plan.whole_again:
            self._wrong.append(f"only {whole:.1%} of the segments are whole after repair")
        self._picture.end(
            said
            + f"{whole:.0%} of the segments have all {self.plan.n} proved shards"
            + ("" if self.plan.whole_again else ", as fewer farmers are left than that")
        )

    async def _pay(self, renter: Renter, title: str) -> None:
        self._picture.begin(title)
        self._picture.end(await pay(renter))

    async def _fund(self, home: Path) -> None:
        self._picture.begin("Deploying a token and a chequebook, and filling it")
        homes = [home, *(farmer.home for farmer in self._network.farmers)]
        self._picture.end(await asyncio.to_thread(self._chain.fund, homes) if self._chain is not None else "")

    async def _redeem(self, renter: Renter) -> None:
        if self._chain is None:
            return
        self._picture.begin("Redeeming every farmer's cheques on the chain")
        homes = {farmer.name: farmer.home for farmer in self._network.farmers}
        redeemed = await asyncio.to_thread(self._chain.redeem, homes)
        if renter.agent.paymaster is not None:
            await renter.agent.paymaster.note_cashed()
        redeemed |= await asyncio.to_thread(self._chain.compare, self._root / "renter", homes)
        self._wrong += redeemed.pop("wrong")
        said = redeemed.pop("said")
        self.figures.values["chain"] = redeemed
        self._picture.end(said)

    async def _reckon(self) -> None:
        self._picture.begin("Comparing everybody's books, the dead farmers' from their disks")
        reckoned = await asyncio.to_thread(
            reckon, self._root / "renter", {farmer.name: farmer.home for farmer in self._network.farmers}
        )
        self._wrong += reckoned.wrong
        self.figures.values |= reckoned.as_json()
        self._picture.end(reckoned.said)

    async def _read_tree(self, renter: Renter, where: str) -> None:
        tree_bytes = self.figures.values["tree_bytes"]
        self._picture.begin(f"Reading {plural(len(self._tree), 'file')} back", tree_bytes)
        began = time.monotonic()
        names = [TREE_PREFIX + name for name, _, _ in self._tree]
        await renter.client.get_many(
            BUCKET,
            names,
            lambda name: FileSink(self._root / where / name),
            on_progress=self._watch(),
            bytes_total=tree_bytes,
        )
        seconds = time.monotonic() - began
        self.figures.values.setdefault("tree_download_ops_s", round(len(names) / seconds, 1))
        self._picture.end(f"{len(names) / seconds:,.0f} files a second")

    async def _compare(self) -> None:
        self._picture.begin("Comparing every byte")
        twice = self.plan.kills_twice
        pairs = [
            (path, self._root / where / (TREE_PREFIX + name))
            for where in ("back", "back again")[: 1 + twice]
            for name, path, _ in self._tree
        ]
        reads = ("download", "degraded_download", "last_download")[: 2 + twice]
        pairs += [(self._generated, self._root / "back" / f"{key}.bin") for key in reads]
        different = await asyncio.to_thread(lambda: [left for left, right in pairs if not same_bytes(left, right)])
        self._wrong += [f"{len(different)} files differ: {different[0]} …"] if different else []
        self.figures.ok = not self._wrong
        self.figures.values |= {"different": [str(path) for path in different[:20]], "wrong": self._wrong}
        self._picture.end("; ".join(self._wrong) or "all equal")


def _opener(path: Path) -> Callable[[], FileSource]:
    return lambda: FileSource(path)


def regular_files(root: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Every regular file below `root`, with its name relative to it. Links are left out, compiled caches too.

    Raises `UserError` when `root` is no directory, `EnvironmentFault` when it cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no directory")
    try:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in ("__pycache__", "site-packages"))
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(root).as_posix(), path, path.stat()
    except OSError as error:
        raise EnvironmentFault(f"{root}: {error.strerror}") from error


def same_bytes(left: Path, right: Path) -> bool:
    """Whether two files hold the same bytes."""
    if not right.exists() or left.stat().st_size != right.stat().st_size:
        return False
    with left.open("rb") as one, right.open("rb") as other:
        while block := one.read(_BLOCK_BYTES):
            if block != other.read(_BLOCK_BYTES):
                return False
    return True
