"""`stook demo --serve-s3`: a demo network with an S3 gateway before it, kept until it is interrupted."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import structlog

from stook.assembly import Renter, create_renter_home, open_renter
from stook.cli.cmd_serve import chores_of
from stook.cli.demo_run import DemoPlan
from stook.cli.local_network import LocalNetwork
from stook.cli.output import emit, plural, say
from stook.cli.run import until_stopped
from stook.config import NodeSettings, RentSettings
from stook.errors import NotEnoughError
from stook.serving import ENVIRONMENT_KEYS, create_key, keys_from_environment, serve_s3
from stook.storage.s3_ports import Right

HOST = "127.0.0.1"
_MEET_SECONDS = 60.0


async def hold_s3(plan: DemoPlan, root: Path, network: LocalNetwork, port: int, *, as_json: bool) -> None:
    """Start farmers and a gateway, say how to use it, and keep both until interrupted."""
    log = structlog.get_logger("stook.s3")
    await asyncio.to_thread(network.start)
    home = root / "renter"
    node = NodeSettings(seeds=network.seeds, max_nodes_per_network=0, log_level="error")
    create_renter_home(home, node, RentSettings(code=f"{plan.k}/{plan.n}", spread="farmers"))
    async with open_renter(home) as renter, chores_of(renter, home):
        await _meet(renter, plan.farmers)

        def on_error(what: str, error: BaseException) -> None:
            log.error("request failed", request=what, why=f"{type(error).__name__}: {error}", exc_info=error)

        async with serve_s3(renter, host=HOST, port=port, on_error=on_error) as serving:
            key_id, secret = os.environ.get(ENVIRONMENT_KEYS[0][0], ""), os.environ.get(ENVIRONMENT_KEYS[0][1], "")
            if not await keys_from_environment(serving.objects):
                made = await create_key(serving.objects, (Right("*", True, True),), "demo")
                key_id, secret = made.key_id, made.secret
            url = f"http://{HOST}:{serving.port}"
            if as_json:
                event = {"event": "ready", "url": url, "access_key": key_id, "secret_key": secret, "home": str(home)}
                emit(event | {"farmers": [farmer.process.pid for farmer in network.farmers if farmer.process]})
            else:
                say(f"S3 at {url}, before {plural(plan.farmers, 'farmer')}, any {plan.k} of {plan.n} shards.")
                say(f"  export AWS_ENDPOINT_URL={url} AWS_DEFAULT_REGION=us-east-1")
                say(f"  export AWS_ACCESS_KEY_ID={key_id} AWS_SECRET_ACCESS_KEY={secret}")
                say("It goes on until it is interrupted; then everything is removed.")
            await until_stopped()


async def _meet(renter: Renter, farmers: int) -> None:
    deadline = time.monotonic() + _MEET_SECONDS
    while await renter.agent.refresh() < farmers:
        if time.monotonic() > deadline:
            raise NotEnoughError(f"only {len(renter.agent.candidates())} of {farmers} farmers announced")
        await asyncio.sleep(0.2)
