"""`stook audit`: prove and check possession of plain files, and check receipts, without a network."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.output import emit, human_size, plural, say
from stook.cli.run import json_option
from stook.errors import CorruptionError, NotFoundError, UserError

if TYPE_CHECKING:
    from stook.audits.evidence import FileReport
    from stook.audits.receipt import BatchReceipt

NOT_PASSED = 1
"""Exit status of a check that was made and did not pass."""
PATH = click.Path(path_type=Path)


@click.group("audit")
def audit_command() -> None:
    """Prove that a file is held whole, and check such proofs, without a network.

    \b
    You:         stook audit prepare FILE -o COMMITMENT        once, while you have the file
    You:         stook audit challenge COMMITMENT -o CHALLENGE
    The keeper:  stook audit prove CHALLENGE FILE -o PROOF
    You:         stook audit verify COMMITMENT CHALLENGE PROOF

    Nobody needs the whole file to check a proof. What farmers sign is checked with `verify-receipt`.
    """


@audit_command.command("prepare")
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Where to write the commitment, which is public.")
@click.option(
    "--strategy",
    type=click.Choice(["sampled", "salted"]),
    default="sampled",
    show_default=True,
    help="sampled: random units, as often as you like. salted: the whole file each time, as often as there are salts.",
)
@click.option("--salts", "count", type=click.IntRange(1, 4096), help="How many salts to make. Default: 16.")
@click.option("--secrets", "private", type=PATH, help="Where to write what makes the salts. Keep it to yourself.")
@json_option
def prepare_command(
    file: Path, output: Path, strategy: str, count: int | None, private: Path | None, as_json: bool
) -> None:
    """Write down what a file must prove later.

    The commitment has the file's size and root. With --strategy salted it also has the hashes of the answers, which
    the keeper needs to prove, and a second file is written that makes the salts.
    """
    from stook.audits.salted import prepare
    from stook.cli.audit_files import FORMATS, CommitmentFile, PlainFile, secrets_file, write_json

    salted = strategy == "salted"
    if salted != (private is not None) or (count is not None and not salted):
        raise UserError("--strategy salted needs --secrets FILE, and only it takes --secrets and --salts")
    for path in (output, private):
        if path is not None and path.exists():
            raise UserError(f"{path} exists already: remove it, or write to another file")
    plain = PlainFile(file)
    root = plain.root()
    leaves: list[bytes] = []
    kept = None
    if private is not None:
        try:
            kept, leaves = prepare(secrets.token_bytes(32), count or 16, plain.size_bytes, plain.pieces())
        except ValueError as error:
            raise CorruptionError(f"{file} changed while it was read: {error}") from None
        write_json(secrets_file(kept), private, private=True)
    commitment = CommitmentFile(
        format=FORMATS[CommitmentFile],
        strategy="salted" if salted else "sampled",
        size_bytes=plain.size_bytes,
        shard_root=root.hex(),
        root=None if kept is None else kept.root.hex(),
        leaves=[leaf.hex() for leaf in leaves],
    )
    write_json(commitment, output)
    if as_json:
        emit({"ok": True, "commitment": str(output), "shard_root": root.hex(), "salts": len(leaves)})
        return
    say(f"{output} commits to {human_size(plain.size_bytes)}, root {root.hex()}")
    if private is not None:
        say(f"{private} makes {plural(len(leaves), 'salt')}; whoever reads it can answer without the file")


@audit_command.command("challenge")
@click.argument("commitment", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Where to write the challenge.")
@click.option(
    "--units", "wanted", type=click.IntRange(1, 48), help="How many units of 16 KiB to ask for. Default: 20; sampled."
)
@click.option("--secrets", "private", type=PATH, help="What makes the salts; its next salt is used up. Salted.")
@json_option
def challenge_command(commitment: Path, output: Path, wanted: int | None, private: Path | None, as_json: bool) -> None:
    """Ask for units at random, or show the next salt.

    A new challenge each time: an answer to an old one may have been kept without the file.
    """
    from stook.audits.challenge import draw_asks
    from stook.cli.audit_files import (
        NO_CONTRACT,
        CommitmentFile,
        SecretsFile,
        challenge_file,
        holding_of,
        read_json,
        secrets_file,
        secrets_of,
        unhex,
        write_json,
    )
    from stook.ids import ShardRoot

    known = read_json(CommitmentFile, commitment)
    if (known.strategy == "salted") != (private is not None) or (wanted and private):
        raise UserError("a salted commitment needs --secrets FILE and takes no --units; a sampled one no --secrets")
    if output.exists():
        raise UserError(f"{output} exists already: remove it, or write to another file")
    nonce = secrets.token_bytes(32)
    left = None
    if private is None:
        (ask,) = draw_asks(holding_of(known.size_bytes, known.shard_root), nonce, wanted or 20)
    else:
        kept = secrets_of(read_json(SecretsFile, private))
        if kept.root.hex() != known.root:
            raise UserError(f"{private} belongs to another commitment than {commitment}")
        ask, kept = kept.take(NO_CONTRACT, ShardRoot(unhex(known.shard_root)), known.size_bytes)
        left = kept.count - kept.next_index
        # Used up before it is shown: a salt that was shown twice proves nothing.
        write_json(secrets_file(kept), private, private=True, replace=True)
    write_json(challenge_file(nonce, ask), output)
    if as_json:
        emit({"ok": True, "challenge": str(output), "units": list(ask.units), "salts_left": left})
    elif ask.salted is None:
        say(f"{output} asks for {plural(len(ask.units), 'unit')}")
    else:
        say(f"{output} shows salt {ask.salted.index + 1} of {ask.salted.count}; {left} left")


@audit_command.command("prove")
@click.argument("challenge", type=PATH)
@click.argument("file", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Where to write the proof.")
@click.option("--commitment", type=PATH, help="The commitment, whose leaves a salted proof needs.")
@json_option
def prove_command(challenge: Path, file: Path, output: Path, commitment: Path | None, as_json: bool) -> None:
    """Answer a challenge from the file.

    A file that changed gives a proof that fails; one of another size gives none.
    """
    from stook.audits.proof import AnswerKind, prove_ask
    from stook.cli.audit_files import (
        ChallengeFile,
        CommitmentFile,
        PlainFile,
        ask_of,
        proof_file,
        read_json,
        unhex,
        write_json,
    )

    asked = read_json(ChallengeFile, challenge)
    leaves = [] if commitment is None else [unhex(leaf) for leaf in read_json(CommitmentFile, commitment).leaves]
    ask = ask_of(asked)
    if ask.salted is not None and len(leaves) != ask.salted.count:
        raise UserError("a salted proof needs the commitment that belongs to the challenge: give --commitment FILE")
    plain = PlainFile(file, leaves)
    if plain.size_bytes != ask.size_bytes:
        raise CorruptionError(f"{file} has {plain.size_bytes} bytes, the challenge is about {ask.size_bytes}")
    item = prove_ask(ask, plain)
    if item.kind is not AnswerKind.PROOF:
        raise CorruptionError(f"{file} changed while it was read")
    write_json(proof_file(asked.nonce, item), output)
    if as_json:
        emit({"ok": True, "proof": str(output), "units": len(item.units)})
    else:
        say(f"{output} answers {challenge}")


@audit_command.command("verify")
@click.argument("commitment", type=PATH)
@click.argument("challenge", type=PATH)
@click.argument("proof", type=PATH)
@json_option
def verify_command(commitment: Path, challenge: Path, proof: Path, as_json: bool) -> None:
    """Check a proof. Exit code 0 only if it passed; 1 if it did not.

    The challenge has to be your own: that its units were drawn by its nonce is checked, that its nonce was fresh
    cannot be.
    """
    from stook.audits.challenge import draw_asks
    from stook.audits.proof import verify_ask
    from stook.cli.audit_files import ChallengeFile, CommitmentFile, ProofFile, ask_of, holding_of, item_of, read_json
    from stook.contracts.verdict import Verdict
    from stook.ids import PublicKey

    known, asked, answer = (
        read_json(CommitmentFile, commitment),
        read_json(ChallengeFile, challenge),
        read_json(ProofFile, proof),
    )
    ask = ask_of(asked)
    if (asked.size_bytes, asked.shard_root) != (known.size_bytes, known.shard_root):
        raise UserError(f"{challenge} is about another file than {commitment}")
    if ask.salted is not None:
        if (ask.salted.root.hex(), ask.salted.count) != (known.root, len(known.leaves)):
            raise UserError(f"{challenge} is about another commitment than {commitment}")
    elif known.strategy != "sampled":
        raise UserError(f"{commitment} is salted, {challenge} is not")
    elif (ask,) != draw_asks(
        holding_of(known.size_bytes, known.shard_root), bytes.fromhex(asked.nonce), len(ask.units)
    ):
        raise UserError(f"the units of {challenge} are not those that its nonce draws")
    if answer.nonce != asked.nonce:
        verdict, reason = Verdict.SILENT, "it answers another challenge"
    else:
        verdict, reason = verify_ask(ask, item_of(answer), PublicKey(b""))
    passed = verdict is Verdict.PASSED
    if as_json:
        emit({"ok": passed, "verdict": verdict.name.lower(), "reason": reason})
    else:
        say(f"{verdict.name.lower()}: {reason}")
    if not passed:
        sys.exit(NOT_PASSED)


@audit_command.command("verify-receipt")
@click.argument("file", type=PATH)
@click.option("--lines", is_flag=True, help="Every line, not only those to look at.")
@json_option
def verify_receipt_command(file: Path, lines: bool, as_json: bool) -> None:
    """Check an audit's receipt and judge its evidence again.

    The file has the receipt of one challenge, and as much evidence as its holder shows: lines, challenge, answers,
    losses, the list of shards drawn over. Exit code 0 if every signature holds and nothing contradicts the receipt;
    1 if evidence does; 6 if a signature or a hash is wrong.
    """
    from stook.audits.evidence import MAX_FILE_BYTES, read_receipt_file, verify_receipt_file
    from stook.storage.durable import faults

    if not file.exists():
        raise NotFoundError(f"there is no file {file}")
    with faults(f"cannot read {file}"), file.open("rb") as opened:
        data = opened.read(MAX_FILE_BYTES + 1)
    report = verify_receipt_file(read_receipt_file(data))
    if as_json:
        emit(_as_dictionary(report))
    else:
        _print(report, every=lines)
    if not report.sound:
        sys.exit(NOT_PASSED)


def _counts(receipt: BatchReceipt) -> dict[str, int]:
    from stook.contracts.verdict import Verdict

    return {verdict.name.lower(): receipt.count(verdict) for verdict in Verdict}


def _as_dictionary(report: FileReport) -> dict[str, Any]:
    """For programs."""
    receipt, text = report.receipt, report.receipt or report.challenge
    assert text is not None
    return {
        "ok": report.sound,
        "receipt": receipt is not None,
        "network": text.network,
        "renter_key": text.renter_key.hex(),
        "auditor_key": text.auditor_key.hex(),
        "farmer_key": text.farmer_key.hex(),
        "sent_at_ms": text.sent_at_ms,
        "counts": None if receipt is None else _counts(receipt),
        "proved_bytes": None if receipt is None else receipt.proved_bytes,
        "drawn": report.drawn,
        "lines": [
            {
                "contract_id": entry.contract_id.hex(),
                "shard_root": entry.shard_root.hex(),
                "stated": None if entry.stated is None else entry.stated.name.lower(),
                "found": None if entry.found is None else entry.found.name.lower(),
                "reason": entry.reason,
                "comparison": entry.comparison.value,
            }
            for entry in report.rejudged
        ],
    }


def _print(report: FileReport, *, every: bool) -> None:
    from stook.audits.evidence import Comparison

    text = report.receipt or report.challenge
    assert text is not None
    asked = datetime.fromtimestamp(min(text.sent_at_ms, 10**14) / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    say(f"{'Receipt' if report.receipt else 'Challenge without a receipt'} in network {text.network}, asked {asked}")
    say(f"  farmer    {text.farmer_key.hex()}")
    say(f"  renter    {text.renter_key.hex()}")
    if text.auditor_key != text.renter_key:
        say(f"  auditor   {text.auditor_key.hex()}")
    if report.receipt is not None:
        told = ", ".join(f"{count} {name}" for name, count in _counts(report.receipt).items() if count)
        say(f"  says      {told}; {human_size(report.receipt.proved_bytes)} proved")
    drawn = {None: "no list of shards to draw from again", True: "by the nonce, as it says", False: "NOT by the nonce"}
    say(f"  drawn     {drawn[report.drawn]}")
    tally = {kind: sum(entry.comparison is kind for entry in report.rejudged) for kind in Comparison}
    shown = ", ".join(f"{count} {kind.value}" for kind, count in tally.items() if count) or "no line is shown"
    say(f"  evidence  {shown}")
    quiet = (Comparison.AGREES, Comparison.UNCOMPARED)
    for entry in report.rejudged:
        if every or entry.comparison not in quiet or report.receipt is None:
            stated = "-" if entry.stated is None else entry.stated.name.lower()
            found = "-" if entry.found is None else entry.found.name.lower()
            say(f"    {entry.contract_id.hex()[:16]}  says {stated}, found {found}: {entry.reason}")
    say("sound" if report.sound else "NOT SOUND: the evidence contradicts the receipt")
