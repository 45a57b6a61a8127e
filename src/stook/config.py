"""Settings: read once from a node's ``config.toml``, checked, frozen; documented line by line in `docs/settings.md`.

A home directory is one node: its settings, its keys, its data. Sizes are written ``100 GiB``, durations ``90 d``.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from stook.errors import ConfigError, EnvironmentFault, UserError
from stook.identity.contact import ContactUri
from stook.shards.geometry import Policy

CONFIG_NAME = "config.toml"
DEFAULT_NETWORK = "local"
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_DURATION_UNITS_MS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-z]*)\s*\Z")
"""Twenty digits hold every size there is; without a bound, reading the number could take for ever."""
_ROLES = {"farm": "a farmer", "rent": "a renter"}
_NODE_ID = re.compile(r"[0-9A-Fa-f]{40}\Z")

Text = Annotated[str, Meta(min_length=1, max_length=256)]


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[node]``: what every node has."""

    network: Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[a-z0-9.-]+\Z")] = DEFAULT_NETWORK
    listen: Text = "127.0.0.1:0"
    """Address and port to serve on; port 0 lets the system choose (farmers then remember it)."""
    advertise: tuple[Text, ...] = ()
    """Addresses to announce instead of the one listened on."""
    seeds: tuple[Text, ...] = ()
    """Contact URIs ``stook://host:port/node-id`` to ask for others and to announce to."""
    max_nodes_per_network: Annotated[int, Meta(ge=0, le=65536)] = 32
    """How many nodes of one /24 (or /48) to remember, so that none can flood us; 0: no limit, for one machine."""
    puzzle_bits: Annotated[int, Meta(ge=0, le=40)] = 0
    """Difficulty of the node id puzzle in this network; every node has the same."""
    puzzle_nonce: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """The solution for this node's key, found when the home was made."""
    log_level: Annotated[str, Meta(pattern=r"^(debug|info|warning|error)\Z")] = "info"
    overlay: bool = True
    """Take part in the overlay: find nodes and be found without asking the seeds again."""
    owner: Annotated[str, Meta(max_length=40)] = ""
    """Node id of the owner of a private grid, who decides who belongs to it; empty: an open network."""
    banned: tuple[Text, ...] = ()
    """Node ids to refuse everything in a private grid, whatever they show."""
    lan: Annotated[str, Meta(max_length=15)] = ""
    """IPv4 address of the interface on which to find nodes by beacons; ``0.0.0.0``: the usual one; empty: none."""


class FarmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[farm]``: what a farmer offers and where its limits are."""

    capacity: Text = "10 GiB"
    """What may be stored or promised at most."""
    min_free_disk: Text = "1 GiB"
    """Free space to leave on the disk, whatever the capacity says."""
    storage_price_per_gib_hour: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    download_price_per_gib: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    min_duration: Text = "1 h"
    max_duration: Text = "366 d"
    max_reserved_per_renter: Text = "4 GiB"
    """How much one renter may have promised and not yet brought."""
    operator: Annotated[str, Meta(max_length=64)] = ""
    failure_domain: Annotated[str, Meta(max_length=64)] = ""
    allowed_renters: tuple[Text, ...] = ()
    """Node ids in hex; empty: everyone."""
    max_transfers: Annotated[int, Meta(ge=1, le=256)] = 6
    upload_limit: Text = "0"
    """Bytes a second sent at most, all peers together; 0: no limit."""
    download_limit: Text = "0"
    """Bytes a second received at most; 0: no limit."""
    scrub_interval: Text = "30 d"
    """How long one pass of the integrity scrub over all shards may take."""
    market: bool = True
    """Hear drafts on the open market and answer with offers."""
    market_discount: Annotated[int, Meta(ge=0, le=100)] = 0
    """How far below its prices it goes for a renter that bargains, in percent."""
    availability: Annotated[str, Meta(pattern=r"^(low|medium|high)\Z")] = "medium"
    """What it claims of itself on the market: up to 50 %, up to 80 %, or more of the time."""
    speed: Annotated[str, Meta(pattern=r"^(low|medium|high)\Z")] = "medium"
    """The same in bits per second: up to 6 million, up to 12 million, or more."""
    credit_limit: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """What a renter may owe before it is not served any more, in smallest units; 0: no limit."""
    drop_unpaid: bool = False
    """Erase what a renter stores once it is twice its grace behind."""


class RentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[rent]``: how objects are kept."""

    code: Annotated[str, Meta(max_length=16)] = ""
    """``K/N``; empty: chosen from the number of independent farmers known."""
    spares: Annotated[int, Meta(ge=0, le=64)] = 1
    """Shards uploaded beyond n, the slowest of which are cut off."""
    spread: Annotated[str, Meta(pattern=r"^(strict|domains|farmers)\Z")] = "strict"
    """``strict`` caps shards per operator, network and failure domain; ``domains`` forgets the networks (a private
    grid); ``farmers`` only asks for distinct farmers (one machine)."""
    contract_duration: Text = "90 d"
    max_storage_price_per_gib_hour: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 2**63 - 1
    max_download_price_per_gib: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 2**63 - 1
    audit_bytes_per_day: Text = "1 GiB"
    """What audits may move at most, both ways."""
    audits_per_day: Annotated[int, Meta(ge=1, le=10**9)] = 20_000
    repair_bytes_per_day: Text = "256 GiB"
    """What repair may move, reading and bringing together."""
    repair_patience: Text = "12 h"
    """How long farmers that fell silent are waited for, as long as a segment has more than k proved shards."""
    copies: Annotated[int, Meta(ge=1, le=16)] = 1
    """Masked copies of each shard that repair makes and keeps."""
    memory_budget: Text = "192 MiB"
    upload_limit: Text = "0"
    download_limit: Text = "0"
    drill_per_day: Text = "1 GiB"
    """What restore drills may fetch in a day; above 0."""
    market: bool = False
    """Publish drafts on the open market and hear offers; `listen` and `advertise` say where."""
    catalog_lag: Text = "5 s"
    """How long a change of the catalog waits for others before it is saved, where a process stays to save it."""
    catalog_history: Text = "7 d"
    """How far back `stook catalog restore` can go."""


class PaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[pay]``: how accounts are settled, at either side."""

    settlement: Annotated[str, Meta(pattern=r"^(ledger|evm)\Z")] = "ledger"
    """``ledger``: a running account; ``evm``: cheques of a chequebook contract (``pip install stook[evm]``)."""
    chain: Annotated[str, Meta(max_length=256)] = ""
    """URL of an Ethereum node's JSON-RPC."""
    chequebook: Annotated[str, Meta(pattern=r"^(0x[0-9a-fA-F]{40})?\Z")] = ""
    """The renter's chequebook contract."""
    token: Annotated[str, Meta(pattern=r"^(0x[0-9a-fA-F]{40})?\Z")] = ""
    """The ERC-20 token that a farmer takes; chequebooks of others are refused."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole ``config.toml``."""

    node: NodeSettings = NodeSettings()
    farm: FarmSettings = FarmSettings()
    rent: RentSettings = RentSettings()
    pay: PaySettings = PaySettings()


def _quantity(text: str, units: dict[str, int], what: str) -> int:
    match = _NUMBER_AND_UNIT.match(text)
    if match is None or match[2].lower() not in units:
        known = ", ".join(unit for unit in units if unit)
        raise ConfigError(f"{text[:80]!r} is no {what}: write a number and one of {known}")
    whole, _, fraction = match[1].partition(".")
    scale = units[match[2].lower()]
    return int(whole + fraction) * scale // int("1" + "0" * len(fraction))


def parse_size(text: str) -> int:
    """Bytes from ``1.5 GiB``, ``100MB`` or ``4096``. Raises `ConfigError`."""
    return _quantity(text, _SIZE_UNITS, "size")


def parse_duration_ms(text: str) -> int:
    """Milliseconds from ``90 d``, ``1.5h`` or ``30 s``. Raises `ConfigError`."""
    return _quantity(text, _DURATION_UNITS_MS, "duration")


def parse_address(text: str) -> tuple[str, int]:
    """Host and port from ``host:port`` or ``[v6]:port``. Raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ConfigError(f"{text[:300]!r} is no address: write host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def load_settings(home: Path, role: str = "") -> Settings:
    """The settings of the node in `home`. Raises `ConfigError` naming the file, the setting and what is wrong.

    With a `role`, the name of its section, a home that was made for another role only is refused: one key would
    otherwise be two nodes.
    """
    path = home / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{home} holds no node yet: run `stook init` or `stook farm init` first") from None
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return _parse(path, text, role)


def _parse(path: Path, text: str, role: str = "") -> Settings:
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Besides its own error the parser lets out those of numbers too long and of lists nested too deep.
        raise ConfigError(f"{path}: {error}") from None
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from None
    _check_quantities(path, settings)
    if role and role not in raw and (others := _ROLES.keys() & raw.keys()):
        raise ConfigError(f"{path}: this is the home of {_ROLES[min(others)]}, not of {_ROLES[role]}; see --home")
    return settings


def parse_settings(text: str, source: str) -> Settings:
    """The settings in a text that came from `source`. Raises `ConfigError`."""
    return _parse(Path(source), text)


def _check_quantities(path: Path, settings: Settings) -> None:
    farm, rent, node = settings.farm, settings.rent, settings.node
    try:
        for size in (farm.capacity, farm.min_free_disk, farm.max_reserved_per_renter, rent.memory_budget):
            parse_size(size)
        for size in (rent.audit_bytes_per_day, rent.repair_bytes_per_day):
            if parse_size(size) >= 2**63:
                raise ConfigError(f"{size!r} a day is more than can be counted")
        for rate in (farm.upload_limit, farm.download_limit, rent.upload_limit, rent.download_limit):
            parse_size(rate)
        if parse_size(rent.drill_per_day) < 1:
            raise ConfigError("drill_per_day: drills without any bytes prove nothing; just do not run `stook drill`")
        for duration in (
            farm.min_duration,
            farm.max_duration,
            farm.scrub_interval,
            rent.contract_duration,
            rent.repair_patience,
            rent.catalog_lag,
            rent.catalog_history,
        ):
            parse_duration_ms(duration)
        for address in (node.listen, *node.advertise):
            parse_address(address)
        for uri in node.seeds:
            ContactUri.parse(uri)
        for name, ids in (
            ("allowed_renters", farm.allowed_renters),
            ("banned", node.banned),
            ("owner", (node.owner,) if node.owner else ()),
        ):
            for node_id in ids:
                if not _NODE_ID.match(node_id):
                    raise ConfigError(f"{name}: {node_id!r} is no node id, which has 40 hex digits")
        if node.lan:
            _check_interface(node.lan)
        if node.lan and not node.overlay:
            raise ConfigError("lan: neighbours are met through the overlay, which is switched off")
        if node.banned and not node.owner:
            raise ConfigError("banned: only a private grid can keep anybody out; see owner")
        if rent.code:
            Policy.parse(rent.code)
    except UserError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_interface(text: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise ConfigError(f"lan: {text!r} is no IPv4 address of an interface, nor 0.0.0.0") from None


def _toml_value(value: object) -> str:
    if isinstance(value, str):
        # TOML escapes as JSON does, and DEL besides.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return str(value)


def render_settings(sections: dict[str, msgspec.Struct]) -> str:
    """A ``config.toml`` text holding every setting of the sections with its value."""
    lines = ["# Every setting is described in docs/settings.md.", ""]
    for name, section in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{field} = {_toml_value(getattr(section, field))}" for field in section.__struct_fields__]
        lines.append("")
    return "\n".join(lines)


def settings_to_write(home: Path, sections: dict[str, msgspec.Struct]) -> bytes:
    """What `write_settings` would write into `home`. Raises `ConfigError` as it does, and writes nothing."""
    path = home / CONFIG_NAME
    if path.exists():
        raise ConfigError(f"{path} exists already: this home holds a node")
    text = render_settings(sections)
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{path}: a setting holds bytes that are no text (UTF-8)") from None
    _parse(path, text)
    return content


def write_settings(home: Path, sections: dict[str, msgspec.Struct]) -> None:
    """Write a new ``config.toml`` into `home`.

    Raises `ConfigError` when there is one already, or, writing nothing, when a setting is not one that loads;
    `EnvironmentFault` when the disk refuses.
    """
    path = home / CONFIG_NAME
    content = settings_to_write(home, sections)
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise ConfigError(f"{path} exists already: this home holds a node") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: {error.strerror}") from None


def default_home() -> Path:
    """``STOOK_HOME``, or ``~/.stook``."""
    return Path(os.environ.get("STOOK_HOME") or Path.home() / ".stook")
