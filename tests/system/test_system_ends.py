"""How a command ends when it is not asked nicely."""

import os
import signal
import subprocess
import sys

import pytest

from stook.cli import main as main_module

pytestmark = pytest.mark.system


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_demo_that_is_ended_leaves_nothing(tmp_path, number):
    command = [sys.executable, "-m", "stook.cli.main", "demo", "--farmers", "2", "--kill", "0", "--size", "1MiB"]
    demo = subprocess.Popen(
        [*command, "--path", str(tmp_path)],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with demo:
        demo.stdout.readline()
        assert list(tmp_path.glob("stook-demo-*"))
        demo.send_signal(number)
        said, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, said
    assert "interrupted" in said
    assert not list(tmp_path.iterdir())


def test_what_nobody_expected_is_a_bug_of_ours(monkeypatch, capsys):
    def broken(*_arguments, **_options):
        raise KeyError("surprise")

    monkeypatch.setattr(main_module.cli, "main", broken)
    monkeypatch.setattr(sys, "argv", ["stook", "ls"])
    monkeypatch.setattr(main_module, "_clean_up_when_ended", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main_module.main()
    assert ended.value.code == 70
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("stook: a bug of ours: KeyError('surprise')")
