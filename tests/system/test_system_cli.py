"""The commands as people run them: processes, pipes, signals, and six farmers that are processes too."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stook.cli.local_network import LocalNetwork, free_loopback_ports
from stook.cli.main import main

pytestmark = pytest.mark.system

README = Path(__file__).parents[2] / "README.md"
MIB = 1 << 20
DEADLINE = 120
STOOK = [sys.executable, "-m", "stook.cli.main"]


@dataclass(frozen=True)
class Ran:
    """What a command printed."""

    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Renter:
    """A home, and two ways to run commands in it: in this process, which is quick, or in one of their own."""

    home: Path
    work: Path
    capture: pytest.CaptureFixture[bytes]

    def command(self, *words: str) -> list[str]:
        """For a process of its own."""
        return [*STOOK, "--home", str(self.home), *words]

    def run(self, *words: str, feed: bytes = b"", code: int = 0) -> Ran:
        """In this process, all the same through `main` and the real descriptors."""
        before = sys.argv, sys.stdin, Path.cwd()
        self.capture.readouterr()
        with tempfile.TemporaryFile("w+b") as raw, io.TextIOWrapper(raw) as file:
            raw.write(feed)
            raw.seek(0)
            sys.argv, sys.stdin = ["stook", "--home", str(self.home), *words], file
            os.chdir(self.work)
            try:
                main()
                ended: object = 0
            except SystemExit as exit_:
                ended = exit_.code
            finally:
                sys.argv, sys.stdin = before[:2]
                os.chdir(before[2])
        ran = Ran(*self.capture.readouterr())
        assert ended == code, (words, ended, ran)
        assert b"Traceback" not in ran.stderr, ran.stderr.decode()
        return ran

    def json(self, *words: str, feed: bytes = b"", code: int = 0) -> Any:
        """The last line of a command's ``--json``."""
        return json.loads(self.run(*words, "--json", feed=feed, code=code).stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path_factory.mktemp("network"), farmers=6, capacity="1 GiB") as running:
        running.start()
        yield running


@pytest.fixture(scope="session")
def shared(network: LocalNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of one renter, for tests that have buckets of their own."""
    home = tmp_path_factory.mktemp("renter") / "home"
    words = ["--home", str(home), "init", "--spread", "farmers", "--code", "2/5", "--seed", network.seeds[0]]
    subprocess.run([*STOOK, *words], check=True, capture_output=True, timeout=DEADLINE)
    return home


@pytest.fixture
def renter(shared: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Renter:
    return Renter(shared, tmp_path, capfdbinary)


@pytest.fixture
def fresh(network: LocalNetwork, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Renter:
    """A renter that nobody used before."""
    renter = Renter(tmp_path / "home", tmp_path, capfdbinary)
    renter.run("init", "--spread", "farmers", "--code", "2/5", "--seed", network.seeds[0])
    return renter


def dice(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def make_tree(root: Path) -> dict[str, bytes]:
    files = {f"small/{number:03}": dice(number * 97, number) for number in range(60)}
    files |= {"empty": b"", "deep/er/and/deeper/file": b"x", "größe/名前 with space": b"text", "big": dice(3 * MIB, 1)}
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(0, 1_600_000_000_123_456_789))
    (root / "big").chmod(0o600)
    (root / "small/001").chmod(0o755)
    return files


def read_tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# --- the tour --------------------------------------------------------------------------------------------------------


def tour() -> tuple[list[str], list[str]]:
    """The farmer's and the renter's commands out of the README."""
    text = README.read_text(encoding="utf-8").split("## Five minutes with it")[1].split("\n## ")[0]
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    commands = [
        [line.split("#")[0].strip() for line in block.splitlines() if line.startswith("stook ")] for block in blocks
    ]
    return commands[0], commands[1]


def test_the_readme_tour_works_to_the_letter(tmp_path: Path) -> None:
    farmer_lines, renter_lines = tour()
    assert len(farmer_lines) == 2
    assert len(renter_lines) >= 9
    (port,) = free_loopback_ports(1)
    user = tmp_path / "user"
    make_tree(user / "Pictures")
    (tmp_path / "holiday.jpg").write_bytes(dice(2 * MIB + 5, 2))
    environment = {key: value for key, value in os.environ.items() if key not in ("STOOK_HOME", "STOOK_PASSPHRASE")}
    environment["HOME"] = str(user)

    def words(line: str, contact: str = "") -> list[str]:
        line = line.replace("/tmp/farm1", str(tmp_path / "farm1")).replace(":7071", f":{port}")
        line = re.sub(r"stook://\S+", contact, line).replace("~", str(user))
        return [*STOOK, *shlex.split(line)[1:]]

    def run(line: str, contact: str = "") -> bytes:
        done = subprocess.run(
            words(line, contact), capture_output=True, cwd=tmp_path, env=environment, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, (line, done)
        return done.stdout

    run(farmer_lines[0])
    farmer = subprocess.Popen(
        words(farmer_lines[1]), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    try:
        assert farmer.stdout is not None
        contact = farmer.stdout.readline().decode().split()[-1]
        assert contact.startswith("stook://")
        said = {line: run(line, contact) for line in renter_lines}
    finally:
        farmer.terminate()
        farmer.wait(DEADLINE)
        if farmer.stdout is not None:
            farmer.stdout.close()
    holiday = (tmp_path / "holiday.jpg").read_bytes()
    assert (tmp_path / "copy.jpg").read_bytes() == holiday
    cat, shown = next((line, out) for line, out in said.items() if line.startswith("stook cat"))
    begin, end = (int(number) for number in cat.split("--range ")[1].split(":"))
    assert shown == holiday[begin:end] != b""
    assert b"2026/holiday.jpg" not in said["stook ls -l photos"]  # it is in the folder 2026/
    assert b"2026/" in said["stook ls -l photos"]
    assert b"1 of 1" in next(out for line, out in said.items() if line.startswith("stook status"))
    assert farmer.returncode == 0


# --- directories -----------------------------------------------------------------------------------------------------


def test_a_directory_goes_out_and_comes_back_the_same(renter: Renter) -> None:
    files = make_tree(renter.work / "tree")
    (renter.work / "tree/link").symlink_to("empty")
    Path(os.fsdecode(os.fsencode(renter.work / "tree") + b"/bad\xff")).write_bytes(b"")
    renter.run("mb", "trees")
    first = renter.json("cp", "-r", "tree", "stook:trees/t", code=5)
    assert (first["files"], first["unchanged"], first["symlinks_skipped"]) == (len(files), 0, 1)
    assert [each["name"] for each in first["failed"]] == ["bad\\udcff"]
    assert first["segments_below_n"] == 0
    (renter.work / "tree/small/007").write_bytes(b"changed")
    (renter.work / "tree/small/008").unlink()
    second = renter.json("cp", "-r", "--delete", "tree", "stook:trees/t", code=5)
    assert (second["files"], second["unchanged"], second["deleted"]) == (1, len(files) - 2, 1)

    back = renter.json("cp", "-r", "stook:trees/t", "back")
    files["small/007"] = b"changed"
    del files["small/008"]
    assert read_tree(renter.work / "back") == files
    assert back["files"] == len(files)
    for name in files:
        was, now = (renter.work / "tree" / name).stat(), (renter.work / "back" / name).stat()
        assert now.st_mode == was.st_mode, name
        assert now.st_mtime_ns // 1_000_000 == was.st_mtime_ns // 1_000_000, name
    again = renter.json("cp", "-r", "stook:trees/t", "back")
    assert (again["files"], again["unchanged"]) == (0, len(files))
    listed = renter.run("ls", "-r", "trees").stdout.decode().splitlines()
    assert listed == sorted((f"t/{name}" for name in files), key=str.encode)


def test_names_made_to_escape_stay_inside(renter: Renter) -> None:
    renter.run("mb", "evil")
    for name in ("../outside", "//absolute", "ok", "dir/link/through"):
        renter.run("put", "-", f"evil/{name}", feed=b"x", code=0)
    (renter.work / "in/dir").mkdir(parents=True)
    (renter.work / "elsewhere").mkdir()
    (renter.work / "in/dir/link").symlink_to(renter.work / "elsewhere")
    done = renter.json("cp", "-r", "stook:evil", "in", code=5)
    assert (done["files"], len(done["failed"])) == (1, 3)
    assert read_tree(renter.work) == {"in/ok": b"x"}


# --- pipes -----------------------------------------------------------------------------------------------------------


def test_streams_of_unknown_size_and_ranges(renter: Renter) -> None:
    data = dice(9 * MIB + 777, 3)
    renter.run("mb", "pipes")
    done = renter.json("put", "-", "pipes/stream", feed=data)
    assert (done["bytes"], done["segments"]) == (len(data), done["segments_full"])
    assert hashlib.sha256(renter.run("cat", "pipes/stream").stdout).digest() == hashlib.sha256(data).digest()
    assert renter.run("get", "pipes/stream", "-").stdout == data
    for begin, end in ((0, 0), (0, 1), (16_383, 16_385), (8 * MIB - 1, 8 * MIB + 1), (len(data) - 3, len(data) + 9)):
        assert renter.run("cat", "pipes/stream", "--range", f"{begin}:{end}").stdout == data[begin:end]
    renter.run("cat", "pipes/stream", "--range", f"{len(data) + 1}:", code=3)
    stat = renter.json("stat", "pipes/stream")
    assert (stat["health"], stat["size_bytes"]) == ("whole", len(data))
    assert {(each["k"], each["n"], each["stored"]) for each in stat["segments"]} == {(2, 5, 5)}
    renter.run("get", "pipes/stream", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_reader_that_goes_away_is_no_error(renter: Renter) -> None:
    renter.run("mb", "gone")
    renter.run("put", "-", "gone/x", feed=dice(4 * MIB, 4))
    process = subprocess.Popen(renter.command("cat", "gone/x"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(10) == dice(4 * MIB, 4)[:10]
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(DEADLINE) == 0


# --- one at a time, and two ------------------------------------------------------------------------------------------


def test_interrupted_while_waiting_for_input_it_ends_at_once(renter: Renter) -> None:
    renter.run("mb", "never")
    process = subprocess.Popen(
        renter.command("put", "-", "never/x"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=renter.work
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(dice(8 * MIB, 5))  # more than a pipe holds: it has begun to read
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert b"interrupted" in process.stderr.read()
    process.stderr.close()
    with suppress(BrokenPipeError):
        process.stdin.close()
    assert renter.run("ls", "never").stdout == b""
    renter.run("rb", "never")


def test_two_processes_at_once_spoil_nothing(renter: Renter) -> None:
    renter.run("mb", "both")
    contents = {name: dice(3 * MIB, seed) for seed, name in enumerate(("one", "two", "same-a", "same-b"))}
    for name, data in contents.items():
        (renter.work / name).write_bytes(data)

    def put(file: str, name: str) -> int:
        words = renter.command("put", file, f"both/{name}")
        return subprocess.run(words, capture_output=True, cwd=renter.work, timeout=DEADLINE, check=False).returncode

    with ThreadPoolExecutor(4) as pool:
        jobs = [("one", "one"), ("two", "two"), ("same-a", "same"), ("same-b", "same")]
        one, two, same_a, same_b = pool.map(lambda job: put(*job), jobs)
    assert (one, two) == (0, 0)
    assert 0 in (same_a, same_b)
    assert {same_a, same_b} <= {0, 4}
    assert renter.run("cat", "both/one").stdout == contents["one"]
    assert renter.run("cat", "both/two").stdout == contents["two"]
    assert renter.run("cat", "both/same").stdout in (contents["same-a"], contents["same-b"])


# --- looking and removing --------------------------------------------------------------------------------------------


def test_farmers_and_status_explain(renter: Renter, network: LocalNetwork) -> None:
    lines = [json.loads(line) for line in renter.run("farmers", "--json").stdout.splitlines()]
    assert {line["operator"] for line in lines} == {farmer.name for farmer in network.farmers}
    assert all(line["refused"] is None and line["free_bytes"] > 0 for line in lines)
    status = renter.json("status")
    assert (status["policy"]["k"], status["policy"]["n"], status["farmers_known"]) == (2, 5, 6)
    assert "so 3 farmers may be lost" in status["may_be_lost"]
    assert status["shortage"] is None
    text = renter.run("status").stdout.decode()
    assert "set by `code`" in text
    assert "\x1b" not in text


def shards_of_objects(status: dict[str, Any]) -> int:
    """Shards stored, without those of the saved catalog."""
    stored: int = status["shards_stored"]
    return stored - 5 * int(status["catalog"]["segments"])


def test_removing_has_the_shards_erased(fresh: Renter) -> None:
    fresh.run("mb", "b")
    for name in ("a/1", "a/2", "c"):
        fresh.run("put", "-", f"b/{name}", feed=dice(20_000, 6))
    assert shards_of_objects(fresh.json("status")) == 15
    assert "1 removed" in fresh.run("rm", "b/c", "b/missing", code=3).stderr.decode()
    done = fresh.json("rm", "-r", "b/a")
    assert (done["removed"], done["erasures_waiting"]) == (2, 0)
    status = fresh.json("status")
    assert (status["objects"], shards_of_objects(status), status["shards_to_cancel"]) == (0, 0, 0)
    fresh.run("put", "-", "b/last", feed=b"x")
    fresh.run("rb", "b", code=4)
    assert b"Removing 1 object" in fresh.run("rb", "--force", "b").stdout
    assert shards_of_objects(fresh.json("status")) == 0


def test_a_lost_agent_database_comes_back_from_the_farmers(
    network: LocalNetwork, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    settings = ("--spread", "farmers", "--code", "2/5", "--seed", network.seeds[0])
    first, other, away = (Renter(tmp_path / name, tmp_path, capfdbinary) for name in ("first", "other", "away"))
    words = first.json("init", *settings)["words"]
    data = dice(2 * MIB, 7)
    first.run("mb", "b")
    first.run("put", "-", "b/x", feed=data)
    other.run("init", "--words", *settings, feed=words.encode())
    (first.home / "catalog.db").rename(other.home / "catalog.db")
    synced = other.json("agent", "sync")
    assert synced["added"] == 5 * synced["segments"]
    assert other.run("cat", "b/x").stdout == data
    assert other.json("agent", "sync")["added"] == 0
    other.run("agent", "export", "away")
    done = away.json("agent", "run", "--once", "--now")
    assert (done["segments_below_n"], done["segments_unreadable"]) == (0, 0)
    away.run("cat", "b/x", code=2)


# --- restore drills --------------------------------------------------------------------------------------------------


def test_drills_prove_what_is_stored_and_a_stranger_can_check(fresh: Renter) -> None:
    fresh.run("mb", "b")
    fresh.run("put", "-", "b/big", feed=dice(5 * MIB, 8))
    fresh.run("put", "-", "b/small", feed=dice(100, 9))
    assert fresh.json("ls", "b")["proved_ms"] is None
    report = fresh.json("drill")
    assert report["ok"]
    assert (report["complete"], report["refusals"]) == (True, {})
    assert report["proved_bytes"] == 5 * MIB + 100
    assert report["unreadable_ppm"] == {"b": 0}
    assert fresh.json("stat", "b/big")["proved_ms"] > 0
    assert b"proven restorable" in fresh.run("status").stdout
    fresh.run("certificate", "export", "b", "b.cert")
    look = fresh.json("durability", "b")
    assert (look["segments_unreadable"], look["farmers"]) == (0, 6)
    assert 0 < look["loss_per_year"]["at_least"] <= look["loss_per_year"]["at_most"] < 1
    assert b"still mostly an assumption" in fresh.run("durability").stdout
    stranger = Renter(fresh.work / "nowhere", fresh.work, fresh.capture)
    judged = stranger.json("certificate", "verify", "b.cert")
    assert judged["certificates"][0]["proved_bytes"] == 5 * MIB + 100


def test_drilling_without_end_stops_in_order(fresh: Renter) -> None:
    fresh.run("mb", "b")
    fresh.run("put", "-", "b/x", feed=dice(100_000, 10))
    command = fresh.command("drill", "--continuous", "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0, process.stderr.read()
    assert [event["event"] for event in events] == ["drill", "certificate"]
    assert events[0]["passed"]
    assert fresh.json("ls", "b")["proved_ms"] == events[0]["at_ms"]


# --- last, for it costs two farmers ----------------------------------------------------------------------------------


def test_zz_with_farmers_dead_everything_is_still_there(renter: Renter, network: LocalNetwork) -> None:
    files = make_tree(renter.work / "tree")
    renter.run("mb", "late")
    renter.run("cp", "-r", "tree", "stook:late")
    network.kill(network.farmers[3:])
    done = renter.json("cp", "-r", "stook:late", "back")
    assert done["files"] == len(files)
    assert read_tree(renter.work / "back") == files
    # Too few are left for five shards; what cannot be durable is not visible.
    refused = renter.json("put", "-", "late/new", feed=b"x", code=7)
    assert "farmers are needed" in refused["message"]
    renter.run("stat", "late/new", code=3)


def test_the_market_brings_offers_of_farmers(renter: Renter) -> None:
    ran = renter.run("market", "--offers", "3", "--seconds", "20", "--json")
    *events, found = [json.loads(line) for line in ran.stdout.splitlines()]
    offers = [event for event in events if event["event"] == "offer"]
    assert found["kept"] == 3
    assert len({offer["farmer"] for offer in offers if offer["answer"] == "kept"}) == 3
    assert all(offer["code"] == "NOT_CHOSEN" for offer in offers if offer["answer"] == "refused")
    words = renter.run("market", "--offers", "1")
    assert b"kept, for 10 contracts" in words.stdout
    assert b"1 kept" in words.stderr
    for wrong in (("--offers", "65"), ("--shard-size", "3 MiB"), ("--count", "0"), ("--seconds", "0")):
        assert b"Traceback" not in renter.run("market", *wrong, code=2).stderr
