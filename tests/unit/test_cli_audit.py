"""`stook audit`, run as a person runs it."""

from __future__ import annotations

import io
import json
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import test_audits_receipt as rounds
from msgspec import structs

from audit_samples import shard_bytes
from stook.audits.evidence import ReceiptFile
from stook.cli import main as main_module
from stook.codec import encode
from stook.contracts.verdict import Verdict


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


Stook = Callable[..., Ran]


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Stook]:
    def call(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["stook", "audit", *(str(word) for word in words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        try:
            main_module.main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Ran(code, captured.out, captured.err)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(shard_bytes(1, 300_000))
    return call


def asked(audit: Stook) -> None:
    """A sampled commitment, challenge and proof: c, q, p."""
    assert audit("prepare", "file", "-o", "c").code == 0
    assert audit("challenge", "c", "-o", "q", "--units", 7).code == 0
    assert audit("prove", "q", "file", "-o", "p").code == 0


def edited(name: str, change: Callable[[Any], object]) -> None:
    content = json.loads(Path(name).read_text())
    change(content)
    Path(name).write_text(json.dumps(content))


def test_a_file_that_is_held_passes(audit: Stook) -> None:
    asked(audit)
    ran = audit("verify", "c", "q", "p", "--json")
    assert (ran.code, ran.json) == (0, {"ok": True, "verdict": "passed", "reason": "7 of 19 units proved"})
    assert audit("verify", "c", "q", "p").out == "passed: 7 of 19 units proved\n"
    assert "leaves" in Path("c").read_text()


def test_a_changed_file_does_not_pass(audit: Stook) -> None:
    asked(audit)
    data = bytearray(Path("file").read_bytes())
    for at in range(0, len(data), 16384):
        data[at] ^= 1
    Path("file").write_bytes(data)
    assert audit("prove", "q", "file", "-o", "p2").code == 0
    ran = audit("verify", "c", "q", "p2", "--json")
    assert (ran.code, ran.json["verdict"]) == (1, "failed")
    Path("file").write_bytes(data[:-1])
    ran = audit("prove", "q", "file", "-o", "p3")
    assert ran.code == 5
    assert "299999 bytes" in ran.err
    assert not Path("p3").exists()


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda p: p["units"].pop(), "malformed"),
        (lambda p: p["units"].reverse(), "failed"),
        (lambda p: p["units"][0]["path"].pop(), "malformed"),
        (lambda p: p["units"][0].update(unit="AAAA"), "malformed"),
        (lambda p: p.update(nonce="0" * 64), "silent"),
        (lambda p: p.update(units=[]), "malformed"),
        (lambda p: p.update(salted={"pre_leaf": "0" * 64, "path": []}), "malformed"),
    ],
)
def test_an_altered_proof_does_not_pass(audit: Stook, change: Callable[[Any], object], verdict: str) -> None:
    assert audit("prepare", "file", "-o", "c").code == 0
    # Units of one length, so that turned ones are wrong and not misshapen.
    while True:
        assert audit("challenge", "c", "-o", "q", "--units", 5).code == 0
        if json.loads(Path("q").read_text())["units"][-1] < 16:
            break
        Path("q").unlink()
    assert audit("prove", "q", "file", "-o", "p").code == 0
    edited("p", change)
    ran = audit("verify", "c", "q", "p", "--json")
    assert (ran.code, ran.json["verdict"]) == (1, verdict)


def test_units_that_the_nonce_does_not_draw_are_refused(audit: Stook) -> None:
    asked(audit)
    edited("q", lambda q: q.update(nonce="0" * 64))
    ran = audit("verify", "c", "q", "p")
    assert ran.code == 2
    assert "draws" in ran.err


def test_salts_prove_everything_until_they_are_used_up(audit: Stook) -> None:
    made = audit("prepare", "file", "-o", "c", "--strategy", "salted", "--secrets", "s", "--salts", 2, "--json")
    assert (made.code, made.json["salts"]) == (0, 2)
    assert stat.S_IMODE(Path("s").stat().st_mode) == 0o600
    for number in range(2):
        shown = audit("challenge", "c", "--secrets", "s", "-o", f"q{number}", "--json")
        assert shown.json["salts_left"] == 1 - number
        assert audit("prove", f"q{number}", "file", "--commitment", "c", "-o", f"p{number}").code == 0
        assert audit("verify", "c", f"q{number}", f"p{number}").code == 0
    ran = audit("challenge", "c", "--secrets", "s", "-o", "q2")
    assert (ran.code, Path("q2").exists()) == (2, False)
    assert "were used" in ran.err
    edited("p1", lambda p: p.update(salted=json.loads(Path("p0").read_text())["salted"]))
    assert audit("verify", "c", "q1", "p1", "--json").json["verdict"] == "failed"
    with Path("file").open("r+b") as file:
        file.write(b"x")
    assert audit("prove", "q1", "file", "--commitment", "c", "-o", "p4").code == 0
    assert audit("verify", "c", "q1", "p4").code == 1


def test_wrong_use_and_bad_files_are_told_in_a_sentence(audit: Stook) -> None:
    asked(audit)
    assert audit("prepare", "file", "-o", "cs", "--strategy", "salted", "--secrets", "s").code == 0
    assert audit("prepare", "file", "-o", "cs2", "--strategy", "salted", "--secrets", "s2").code == 0
    assert audit("challenge", "cs", "--secrets", "s", "-o", "qs").code == 0
    Path("empty").touch()
    Path("text").write_text("hello")
    for words, code, told in (
        (("prepare", "file", "-o", "c"), 2, "exists already"),
        (("prepare", "none", "-o", "x"), 3, "no file"),
        (("prepare", "empty", "-o", "x"), 2, "0 bytes"),
        (("prepare", ".", "-o", "x"), 2, "no regular file"),
        (("prepare", "file", "-o", "x", "--strategy", "salted"), 2, "--secrets"),
        (("prepare", "file", "-o", "x", "--salts", "3"), 2, "--secrets"),
        (("challenge", "text", "-o", "x"), 2, "no file of the format"),
        (("challenge", "q", "-o", "x"), 2, "no file of the format"),
        (("challenge", "c", "-o", "q"), 2, "exists already"),
        (("challenge", "c", "--secrets", "s", "-o", "x"), 2, "sampled one no --secrets"),
        (("challenge", "cs", "-o", "x"), 2, "needs --secrets"),
        (("challenge", "cs", "--secrets", "s2", "-o", "x"), 2, "another commitment"),
        (("prove", "qs", "file", "-o", "x"), 2, "--commitment"),
        (("prove", "q", "none", "-o", "x"), 3, "no file"),
        (("verify", "c", "qs", "p"), 2, "another commitment"),
        (("verify", "cs", "q", "p"), 2, "salted"),
        (("verify", "c", "none", "p"), 3, "no file"),
        (("verify", "c", "p", "q"), 2, "no file of the format"),
        (("verify-receipt", "none"), 3, "no file"),
        (("verify-receipt", "text"), 6, "ReceiptFile"),
        (("prepare", "file", "-o", "no/such/place"), 5, "cannot write"),
    ):
        ran = audit(*words)
        assert ran.code == code, (words, ran)
        assert told in ran.err, (words, ran.err)
        assert not Path("x").exists(), words
    edited("q", lambda q: q.update(units=[1, 1]))
    assert audit("verify", "c", "q", "p").code == 2
    edited("q", lambda q: q.update(format="stook audit challenge 2"))
    assert "has the format" in audit("verify", "c", "q", "p").err


# --- receipts --------------------------------------------------------------------------------------------------------


def written(file: ReceiptFile) -> Path:
    path = Path("receipt")
    path.write_bytes(encode(file))
    return path


def test_a_sound_receipt_is_told_so(audit: Stook) -> None:
    ran = audit("verify-receipt", written(rounds.whole_file()), "--lines")
    assert ran.code == 0
    assert ran.out.endswith("sound\n")
    assert f"{len(rounds.SETTLED.lines)} agrees" in ran.out
    told = audit("verify-receipt", "receipt", "--json").json
    assert told["ok"] is True
    assert told["drawn"] is True
    assert told["counts"]["passed"] == len(told["lines"])


def test_a_false_receipt_is_told_line_by_line(audit: Stook) -> None:
    false = rounds.relabelled(Verdict.FAILED)
    ran = audit("verify-receipt", written(rounds.whole_file(receipt=false.signed, lines=false.lines)))
    assert ran.code == 1
    assert "says failed, found passed" in ran.out
    assert "NOT SOUND" in ran.out


def test_proofs_without_a_receipt_and_bad_signatures(audit: Stook) -> None:
    ran = audit("verify-receipt", written(rounds.whole_file(receipt=None, lines=())))
    assert ran.code == 0
    assert "without a receipt" in ran.out
    forged = structs.replace(rounds.SETTLED.signed, signature=rounds.OTHER.sign(bytes(32)))
    ran = audit("verify-receipt", written(rounds.whole_file(receipt=forged)), "--json")
    assert (ran.code, ran.json["error"]) == (6, "MisbehaviourError")
