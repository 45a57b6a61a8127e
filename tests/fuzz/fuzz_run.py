"""Coverage-guided fuzzing of every target with atheris (libFuzzer).

::

    python tests/fuzz/fuzz_run.py                          every target for a while, one after the other
    python tests/fuzz/fuzz_run.py --only wire --seconds 600
    python tests/fuzz/fuzz_run.py --reproduce FILE --only wire.hello

New inputs that reach new code are kept in `.fuzz/corpus`, findings in `.fuzz/findings`; both outlive the run. What a
run does is decided by `--seed`. Exit status: 0 nothing found, 1 findings, 3 atheris cannot be used here.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import os
import re
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz_base import Target

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

TIMEOUT_SECONDS = 10
"""One input may take so long at most, on a machine that does other things as well. All inputs are small."""
RSS_LIMIT_MB = 1024
MSGPACK_WORDS = (
    "c0",
    "c2",
    "c3",
    "c440",
    "c420",
    "c410",
    "cc",
    "cd",
    "ce",
    "cf",
    "d3",
    "dc",
    "dd",
    "90",
    "91",
    "a0",
    "d9",
)
"""Heads of MessagePack values, for libFuzzer's dictionary."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="targets whose name begins so")
    parser.add_argument("--runs", type=int, default=0, help="inputs for each target, fewer for slow ones; 0: no limit")
    parser.add_argument("--seconds", type=int, default=60, help="at most so long for each target")
    parser.add_argument("--total-seconds", type=int, default=0, help="stop beginning targets after so long; 0: never")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0: another each time")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="where corpus and findings are kept")
    parser.add_argument("--canary", action="store_true", help="fuzz only a target with a known hole")
    parser.add_argument("--reproduce", type=Path, help="feed this file to the target named by --only, without atheris")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    if chosen.reproduce:
        return reproduce(chosen.only, chosen.reproduce)
    try:
        import atheris
    except ImportError as error:
        print(f"atheris cannot be used here: {error}", file=sys.stderr)
        return 3
    with atheris.instrument_imports(include=["stook", *(path.stem for path in HERE.glob("fuzz_*.py"))]):
        if chosen.canary:
            import fuzz_canary
        else:
            import fuzz_registry
    targets = {"canary": fuzz_canary.CANARY} if chosen.canary else fuzz_registry.TARGETS
    names = [name for name in targets if name.startswith(chosen.only)]
    if not names:
        print(f"no target begins with {chosen.only!r}; there are: {' '.join(targets)}", file=sys.stderr)
        return 2
    (chosen.folder / "msgpack.dict").parent.mkdir(parents=True, exist_ok=True)
    lines = (
        f'"{"".join(chr(92) + "x" + word[at : at + 2] for at in range(0, len(word), 2))}"' for word in MSGPACK_WORDS
    )
    (chosen.folder / "msgpack.dict").write_text("\n".join(lines) + "\n")
    begun, failed, skipped = time.monotonic(), [], []
    with tempfile.TemporaryDirectory(prefix="stook-fuzz-") as tempfile.tempdir:  # libFuzzer's end skips all tidying up
        for name in names:
            if chosen.total_seconds and time.monotonic() - begun > chosen.total_seconds:
                skipped.append(name)
            elif not in_child(targets[name], chosen):
                failed.append(name)
    for name in failed:
        print(f"FINDING in {name}: see {chosen.folder / 'findings' / name}")
    if skipped:
        print(f"NOT RUN for lack of time: {' '.join(skipped)}")
    print(f"fuzzed {len(names) - len(skipped)} targets of {len(names)}, {len(failed)} with findings")
    return 1 if failed else 0


def in_child(target: Target, chosen: argparse.Namespace) -> bool:
    """Fuzz one target in a fork, because libFuzzer ends its process; whether nothing was found."""
    log = chosen.folder / "logs" / f"{target.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            fuzz(target, chosen)
        except SystemExit:
            # How atheris ends after a finding. The C library's way out lets libFuzzer write the input down; Python's
            # own would unwind what belongs to the parent.
            ctypes.CDLL(None).exit(1)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    _, status = os.waitpid(child, 0)
    told = log.read_text(errors="replace")
    good = os.waitstatus_to_exitcode(status) == 0 or stood_still(target, chosen.folder / "findings" / target.name)
    runs = re.search(r"number_of_executed_units:\s*(\d+)", told)
    print(f"{target.name:42} {runs[1] if runs else '?':>9} inputs {time.monotonic() - begun:6.1f} s")
    if not good:
        print(told)
    return good


def stood_still(target: Target, found: Path) -> bool:
    """Whether all that was found is inputs that took long once and do not again.

    libFuzzer goes by the clock on the wall, and a machine may stand still. Here only the time of the processor counts.
    """
    inputs = list(found.glob("*"))
    if not inputs or not all(path.name.startswith("timeout-") for path in inputs):
        return False
    for path in inputs:
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT_SECONDS, TIMEOUT_SECONDS))
            try:
                target.run(path.read_bytes())
                os._exit(0)
            finally:
                os._exit(70)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            return False
        print(f"{path} took long once and does not again: the machine stood still")
        path.unlink()
    return True


def fuzz(target: Target, chosen: argparse.Namespace) -> None:
    """Never returns."""
    import atheris

    corpus, found = chosen.folder / "corpus" / target.name, chosen.folder / "findings" / target.name
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate([*target.seeds(), *(path.read_bytes() for path in kept(target))]):
        (corpus / f"seed-{number}").write_bytes(seed[: target.max_bytes])
    options = [
        target.name,
        f"-max_total_time={chosen.seconds}",
        f"-timeout={TIMEOUT_SECONDS}",
        f"-rss_limit_mb={RSS_LIMIT_MB}",
        f"-max_len={target.max_bytes}",
        f"-dict={chosen.folder / 'msgpack.dict'}",
        f"-artifact_prefix={found}{os.sep}",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    if chosen.runs:
        options.append(f"-runs={max(1, chosen.runs // target.weight)}")
    if chosen.seed:
        options.append(f"-seed={chosen.seed}")
    atheris.Setup([*options, str(corpus)], target.run)
    atheris.Fuzz()


def kept(target: Target) -> list[Path]:
    """Inputs that once broke the target."""
    return sorted((HERE / "findings" / target.name).glob("*"))


def reproduce(name: str, path: Path) -> int:
    """Feed one file to one target; Python's own traceback tells the rest."""
    from fuzz_registry import TARGETS

    if name not in TARGETS:
        print(f"--only names no target; there are: {' '.join(TARGETS)}", file=sys.stderr)
        return 2
    faulthandler.enable()
    TARGETS[name].run(path.read_bytes())
    print(f"{path} is no finding of {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
