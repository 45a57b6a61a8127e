"""Restore drills on a simulated network: what comes back is proved, what does not is said, and by whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renter_sources import item
from sim_objects import BUCKET, put_all, some_objects
from stook.errors import NotFoundError, UserError
from stook.ids import PublicKey, SegmentId
from stook.renter.certificate import verify_chain
from stook.renter.drill import Drilled, DrillReport
from stook.renter.drill_loop import DrillLoop
from stook.renter.drill_plan import Pick, rows_of
from stook.renter.ports import Located
from stook.shards.geometry import Policy
from stook.sim.adversaries import Forgets, HoldsHostage, ServesOtherBytes, Stalls
from stook.sim.adversary import Casting
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import OutcomeKind

POLICY = Policy(k=2, r=3, o=4, n=5)
PLENTY = 1 << 40
DAY_SECONDS = 86_400


def net_of(farmers: int = 6, seed: int = 1, **more: object) -> Testnet:
    return Testnet(farmers=farmers, seed=seed, policy=POLICY, **more)  # type: ignore[arg-type]


async def stored(net: Testnet, sizes: tuple[int, ...] = (0, 5_000, 120_000, 9_000_000)) -> dict[str, bytes]:
    objects = some_objects(net, sizes)
    await put_all(net, objects)
    await net.renter.client.settle()
    return objects


async def drill(net: Testnet, budget: int = PLENTY, buckets: list[str] | None = None) -> DrillReport:
    return await net.renter.client.driller.run(budget, buckets=buckets)


def test_everything_stored_is_proved_object_by_object() -> None:
    async def main() -> None:
        async with net_of() as net:
            objects = await stored(net)
            client = net.renter.client
            assert (await client.status()).proofs[BUCKET].never == 3
            report = await drill(net)
            assert report.complete
            assert (report.passed, report.failed, report.refusals) == (report.drills, [], {})
            assert report.proved_bytes == sum(len(data) for data in objects.values())
            proofs = await client.proofs(BUCKET, objects)
            assert proofs.keys() == {name for name, data in objects.items() if data}
            assert all(proof.proved_ms > 0 and not proof.failing for proof in proofs.values())
            proof = (await client.status()).proofs[BUCKET]
            assert (proof.never, proof.failing) == (0, 0)
            assert 0 < proof.oldest_ms <= proof.newest_ms
            assert (await client.stat(BUCKET, "dir/1")).proof == proofs["dir/1"]
            assert (await client.stat(BUCKET, "dir/0")).proof is None
            signed = await client.driller.certify(BUCKET, net.renter.key)
            again = await client.driller.certify(BUCKET, net.renter.key)
            assert await client.driller.certificates(BUCKET) == [signed, again]
            verify_chain([signed, again])
            certificate = again.certificate
            assert certificate.unreadable_ppm == 0
            assert certificate.proved_bytes == certificate.object_bytes == report.proved_bytes
            assert certificate.fetched_bytes == report.fetched_bytes
            assert (certificate.drills, certificate.drills_failed) == (report.drills, 0)

    run(main(), within_seconds=600)


def test_every_farmer_is_asked_for_what_it_holds_within_a_few_drills() -> None:
    async def main() -> None:
        async with net_of() as net:
            await stored(net, (100_000,))
            (target,) = await net.renter.client.driller.pool().targets()
            located = (await net.renter.agent.locate([target.segment_id], net.renter.key.public_key))[target.segment_id]
            held = {ticket.index for ticket in located.tickets}
            assert len(held) == 5
            seen: set[int] = set()
            for _ in range(3):
                assert (await drill(net)).passed == 1
                (target,) = net.renter.catalog.drills.targets()
                seen |= rows_of(target.rows) or held
            assert seen == held, "two at a time, five are given back within three drills"

    run(main(), within_seconds=600)


def test_dead_farmers_fail_a_drill_and_their_return_mends_it() -> None:
    async def main() -> None:
        async with net_of(farmers=5) as net:
            await stored(net, (100_000,))
            assert (await drill(net)).passed == 1
            await net.kill(0, 1, 2, 3)
            report = await drill(net)
            assert (report.passed, len(report.failed), report.offline) == (0, 1, False)
            assert "1 of the 2 shards" in report.failed[0].outcome.why
            proofs = await net.renter.client.proofs(BUCKET, ["dir/0"])
            assert proofs["dir/0"].failing
            assert proofs["dir/0"].proved_ms > 0, "when it was last proved is still known"
            signed = await net.renter.client.driller.certify(BUCKET, net.renter.key)
            assert (signed.certificate.failing_segments, signed.certificate.unreadable_ppm) == (1, 1_000_000)
            assert signed.certificate.shards_refused > 0
            await net.restart(0, 1, 2, 3)
            await net.renter.agent.refresh()
            assert (await drill(net)).passed == 1
            mended = await net.renter.client.driller.certify(BUCKET, net.renter.key)
            assert (mended.certificate.failing_segments, mended.certificate.unreadable_ppm) == (0, 0)
            verify_chain([signed, mended])

    run(main(), within_seconds=3600)


def test_one_that_gives_nothing_back_shows_up_though_all_can_be_read() -> None:
    async def main() -> None:
        async with net_of(farmers=5, cast={0: HoldsHostage, 1: Stalls}) as net:
            # The second stalls uploads as well, so the first fills what it can.
            await put_all(net, {"a": net.dice(100_000)})
            await net.renter.agent.settle()
            hostage = net.farmers[0].node_id
            report = DrillReport()
            for _ in range(6):
                report = await drill(net)
                assert (report.passed, report.failed) == (1, [])
                if hostage in report.refusals:
                    break
            assert "GRANT_INVALID" in report.refusals[hostage]
            assert (await net.renter.blame(OutcomeKind.RETRIEVE)).keys() >= {0}
            signed = await net.renter.client.driller.certify(BUCKET, net.renter.key)
            assert signed.certificate.shards_refused > 0
            assert signed.certificate.unreadable_ppm == 0

    run(main(), within_seconds=3600)


def test_liars_enough_to_lose_a_segment_are_in_the_certificate() -> None:
    async def main() -> None:
        async with net_of(farmers=5, cast=dict.fromkeys(range(4), ServesOtherBytes)) as net:
            await stored(net, (100_000,))
            report = await drill(net)
            (failed,) = report.failed
            assert failed.heard
            assert set(report.refusals) == {net.farmers[number].node_id for number in range(4)}
            certificate = (await net.renter.client.driller.certify(BUCKET, net.renter.key)).certificate
            assert (certificate.drills, certificate.drills_failed, certificate.failing_segments) == (1, 1, 1)
            assert certificate.failing_bytes == certificate.segment_bytes
            assert certificate.unreadable_ppm == 1_000_000

    run(main(), within_seconds=3600)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    cast=st.dictionaries(st.integers(0, 5), st.sampled_from([ServesOtherBytes, HoldsHostage, Forgets]), max_size=6),
)
def test_a_bucket_is_certified_as_what_its_honest_farmers_can_give(seed: int, cast: dict[int, Casting]) -> None:
    """Whoever lies, and however many: what k honest farmers hold is proved, all else fails and is said to."""

    async def main() -> None:
        async with net_of(seed=seed, cast=cast) as net:
            await stored(net, (100_000, 1_500_000))
            honest = {farmer.node_id for farmer in net.honest}
            driller = net.renter.client.driller
            targets = {target.segment_id: target for target in await driller.pool().targets()}
            held = await net.renter.agent.holdings(targets)
            good = {
                segment_id
                for segment_id, segment in held.items()
                if len({index for farmer, index in segment.shards if farmer in honest}) >= POLICY.k
            }
            report = await drill(net)
            assert not report.offline
            assert {each.outcome.segment_id for each in report.failed} == targets.keys() - good
            assert not honest & report.refusals.keys()
            certificate = (await driller.certify(BUCKET, net.renter.key)).certificate
            assert certificate.proved_bytes == sum(targets[segment_id].plain_bytes for segment_id in good)
            assert certificate.failing_segments == len(targets) - len(good)
            assert (certificate.unreadable_ppm == 0) == (len(good) == len(targets))

    run(main(), within_seconds=3600)


def test_hostage_takers_everywhere_are_no_reason_to_think_that_we_are_offline() -> None:
    async def main() -> None:
        async with net_of(farmers=5, cast=dict.fromkeys(range(5), HoldsHostage)) as net:
            await stored(net, (100_000,))
            report = await drill(net)
            assert (len(report.failed), report.offline) == (1, False)
            assert len(report.refusals) == 5

    run(main(), within_seconds=3600)


def test_when_nobody_answers_at_all_nothing_is_said() -> None:
    async def main() -> None:
        async with net_of(farmers=5) as net:
            await stored(net)
            await net.kill(*range(5))
            report = await drill(net)
            assert (report.offline, report.drills, report.failed) == (True, 0, [])
            assert all(target.tried_ms == 0 for target in net.renter.catalog.drills.targets())

    run(main(), within_seconds=3600)


def test_a_false_mask_key_is_found_though_every_shard_is_true() -> None:
    async def main() -> None:
        async with net_of() as net:
            await stored(net, (100_000,))
            agent = net.renter.agent
            true = agent.locate

            async def lie(segment_ids: Iterable[SegmentId], grantee: PublicKey) -> Mapping[SegmentId, Located]:
                located = await true(segment_ids, grantee)
                return {segment_id: replace(where, mask_key=bytes(32)) for segment_id, where in located.items()}

            agent.locate = lie  # type: ignore[method-assign]
            (failed,) = (await drill(net)).failed
            assert "other bytes" in failed.outcome.why

    run(main(), within_seconds=600)


def test_what_an_earlier_drill_left_in_memory_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with net_of() as net:
            await stored(net, (100_000,))
            assert (await drill(net)).passed == 1
            monkeypatch.setattr("stook.renter.drill.unseal", lambda *args, **more: None)
            (failed,) = (await drill(net)).failed
            assert "other bytes" in failed.outcome.why

    run(main(), within_seconds=600)


def test_a_record_about_other_bytes_is_found_though_the_segment_is_whole() -> None:
    async def main() -> None:
        async with net_of() as net:
            await stored(net, (100_000, 5_000))
            client, catalog = net.renter.client, net.renter.catalog
            bucket, entry = catalog.bucket(BUCKET), catalog.get(BUCKET, "dir/1")
            assert entry is not None
            record = client._vault.open_object(bucket, entry)
            extents = tuple(msgspec.structs.replace(extent, plain_hash=bytes(32)) for extent in record.extents)
            sealed = client._vault.seal_object(
                bucket, "dir/1", entry.version + 1, msgspec.structs.replace(record, extents=extents)
            )
            catalog.commit([replace(entry, version=entry.version + 1, sealed_record=sealed)])
            (failed,) = (await drill(net)).failed
            assert "dir/1 is about other bytes" in failed.outcome.why

    run(main(), within_seconds=600)


def test_what_the_agent_has_forgotten_is_a_failure() -> None:
    async def main() -> None:
        async with net_of() as net:
            await stored(net, (100_000,))
            (target,) = await net.renter.client.driller.pool().targets()
            await net.renter.agent.release([target.segment_id])
            (failed,) = (await drill(net)).failed
            assert failed.outcome.asked == 0
            assert failed.heard

    run(main(), within_seconds=600)


def test_what_is_removed_meanwhile_is_no_failure() -> None:
    async def main() -> None:
        async with net_of() as net:
            await stored(net, (100_000,))
            driller = net.renter.client.driller
            (target,) = await driller.pool().targets()
            await net.renter.client.remove(BUCKET, ["dir/0"])
            assert await driller.attempt(Pick(target, spot=False)) is None
            assert (await drill(net)).complete

    run(main(), within_seconds=600)


def test_a_run_keeps_to_its_bucket_and_its_bytes() -> None:
    async def main() -> None:
        async with net_of() as net:
            await stored(net, (9_000_000, 9_000_000))
            await net.renter.client.make_bucket("other")
            await net.renter.client.put("other", item("x", bytes(70_000)))
            report = await drill(net, buckets=["other"])
            assert (report.complete, report.proved_bytes) == (True, 70_000)
            assert (await net.renter.client.status()).proofs[BUCKET].never == 2
            budget = 9 << 20
            report = await drill(net, budget, [BUCKET])
            assert not report.complete
            assert 0 < report.fetched_bytes <= budget
            with pytest.raises(UserError, match="too few"):
                await drill(net, 1)
            with pytest.raises(NotFoundError):
                await drill(net, buckets=["nowhere"])

    run(main(), within_seconds=600)


def loop_of(net: Testnet, bytes_per_day: int, seen: list[Drilled]) -> DrillLoop:
    renter = net.renter
    return DrillLoop(
        driller=renter.client.driller,
        key=renter.key,
        catalog=renter.catalog,
        clock=renter.clock,
        entropy=net.dice,
        offload=net.world.offload,
        bytes_per_day=bytes_per_day,
        on_drill=seen.append,
    )


def test_drilling_without_end_proves_all_and_stays_within_its_allowance() -> None:
    async def main() -> None:
        async with net_of() as net:
            await stored(net, (9_000_000, 9_000_000, 9_000_000, 50_000))
            seen: list[Drilled] = []
            per_day = 10 << 20
            loop = loop_of(net, per_day, seen)
            days = 0
            while net.renter.catalog.drills.bucket_proof(BUCKET).never:
                days += 1
                assert days < 15
                for _ in range(24):
                    await loop.chore.step()
                    await net.pass_seconds(DAY_SECONDS / 24)
                assert sum(each.charged_bytes for each in seen) <= per_day * (1 + days)
            assert all(each.outcome.passed for each in seen)
            assert len(await net.renter.client.driller.certificates(BUCKET)) in (days, days + 1)
            verify_chain(await net.renter.client.driller.certificates(BUCKET))
            # A restart on the same day does not fill the bucket again.
            fetched = net.renter.catalog.drills.fetched_on(net.renter.clock.now_ms())
            fresh: list[Drilled] = []
            for _ in range(5):
                await loop_of(net, max(1, fetched), fresh).chore.step()
            assert sum(each.charged_bytes for each in fresh) <= per_day

    run(main(), within_seconds=40 * DAY_SECONDS)


def test_an_allowance_of_nothing_is_refused() -> None:
    async def main() -> None:
        async with net_of() as net:
            with pytest.raises(ValueError):
                loop_of(net, 0, [])

    run(main(), within_seconds=600)
