"""The steps of each client: what its users do, and that the bytes are theirs."""

from __future__ import annotations

import os
from collections.abc import Callable

from conformance.run import Bench, same, tree
from conformance.toolbox import Toolbox


def aws(bench: Bench, tools: Toolbox) -> None:
    """AWS CLI."""
    program = tools.environment("clients") / "aws"
    source, back = tree(bench.work / "source"), bench.work / "back"

    def cli(*arguments: object) -> bytes:
        return bench.run(program, *arguments)

    bench.step("mb", lambda: _void(cli("s3", "mb", "s3://aws-one")))
    bench.step("cp a large file", lambda: _void(cli("s3", "cp", source / "large", "s3://aws-one/large")))
    bench.step("sync up", lambda: _void(cli("s3", "sync", source, "s3://aws-one/tree")))
    bench.step("sync up again moves nothing", lambda: _empty(cli("s3", "sync", source, "s3://aws-one/tree")))

    def down() -> None:
        cli("s3", "sync", "s3://aws-one/tree", back)
        same(source, back)

    bench.step("sync down and compare", down)
    bench.step("cp within", lambda: _void(cli("s3", "cp", "s3://aws-one/large", "s3://aws-one/copy")))
    bench.step("mv", lambda: _void(cli("s3", "mv", "s3://aws-one/copy", "s3://aws-one/moved")))

    def listed() -> None:
        lines = cli("s3", "ls", "--recursive", "s3://aws-one").decode().splitlines()
        assert len(lines) == 17, lines

    bench.step("ls --recursive", listed)

    def conditional() -> None:
        put = ("s3api", "put-object", "--bucket", "aws-one", "--key", "lock", "--if-none-match", "*")
        cli(*put)
        try:
            cli(*put)
        except Exception as error:
            assert "PreconditionFailed" in str(error), error
        else:
            raise AssertionError("the second put went through")

    bench.step("put-object --if-none-match", conditional)

    def streamed() -> None:
        data = os.urandom(12 << 20)
        bench.run(program, "s3", "cp", "-", "s3://aws-one/stdin", text=data)
        assert cli("s3", "cp", "s3://aws-one/stdin", "-") == data

    bench.step("cp from and to pipes", streamed)

    def presigned() -> None:
        url = cli("s3", "presign", "s3://aws-one/large").decode().strip()
        import urllib.request

        with urllib.request.urlopen(url) as answer:
            assert answer.read() == (source / "large").read_bytes()

    bench.step("presign", presigned)
    bench.step("rb --force", lambda: _void(cli("s3", "rb", "--force", "s3://aws-one")))


def rclone(bench: Bench, tools: Toolbox) -> None:
    """rclone, without any quirk set."""
    program = tools.environment("clients") / "rclone"
    source, back = tree(bench.work / "source"), bench.work / "back"
    environment = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_ST_TYPE": "s3",
        "RCLONE_CONFIG_ST_PROVIDER": "Other",
        "RCLONE_CONFIG_ST_ENV_AUTH": "true",
        "RCLONE_CONFIG_ST_ENDPOINT": bench.url,
        "RCLONE_RETRIES": "1",
    }

    def run(*arguments: object) -> bytes:
        return bench.run(program, *arguments, env=environment)

    bench.step("mkdir", lambda: _void(run("mkdir", "st:rclone-one")))
    cutoff = ("--s3-upload-cutoff", "8M", "--s3-chunk-size", "5M")
    bench.step("copy", lambda: _void(run("copy", source, "st:rclone-one/a", *cutoff)))
    bench.step("check", lambda: _void(run("check", source, "st:rclone-one/a")))
    bench.step("check --download", lambda: _void(run("check", "--download", source, "st:rclone-one/a")))
    (source / "deep/er/n3").unlink()
    (source / "new").write_bytes(b"new")
    bench.step("sync", lambda: _void(run("sync", source, "st:rclone-one/a", *cutoff)))
    bench.step("check after sync", lambda: _void(run("check", "--download", source, "st:rclone-one/a")))

    def ranges() -> None:
        part = run("cat", "st:rclone-one/a/large", "--offset", "7000000", "--count", "100000")
        assert part == (source / "large").read_bytes()[7_000_000:7_100_000]
        assert run("cat", "st:rclone-one/a/large", "--tail", "77") == (source / "large").read_bytes()[-77:]

    bench.step("cat with ranges", ranges)
    inside = ("--s3-copy-cutoff", "6M", "--s3-chunk-size", "5M")
    bench.step("copy within, in parts", lambda: _void(run("copy", "st:rclone-one/a", "st:rclone-one/b", *inside)))
    bench.step("check the copy", lambda: _void(run("check", "--download", source, "st:rclone-one/b")))

    def down() -> None:
        run("copy", "st:rclone-one/b", back, "--multi-thread-cutoff", "10M")
        same(source, back)

    bench.step("copy down and compare", down)
    bench.step("versioning", lambda: _void(run("backend", "versioning", "st:rclone-one", "Enabled")))
    bench.step("deletefile", lambda: _void(run("deletefile", "st:rclone-one/a/new")))
    bench.step("lsf --s3-versions", lambda: _contains(run("lsf", "-R", "--s3-versions", "st:rclone-one/a"), b"new-v"))
    bench.step("cleanup-hidden", lambda: _void(run("backend", "cleanup-hidden", "st:rclone-one")))
    bench.step(
        "rcat", lambda: _void(bench.run(program, "rcat", "st:rclone-one/pipe", env=environment, text=b"p" * 9000))
    )
    bench.step("delete", lambda: _void(run("delete", "st:rclone-one")))
    bench.step("purge", lambda: _void(_purge(run)))


def _purge(run: Callable[..., bytes]) -> bytes:
    run("backend", "cleanup-hidden", "st:rclone-one")
    return run("purge", "st:rclone-one")


def restic(bench: Bench, tools: Toolbox) -> None:
    """restic."""
    program = tools.restic()
    source, back = tree(bench.work / "source"), bench.work / "back"
    environment = {
        "RESTIC_REPOSITORY": f"s3:{bench.url}/restic-one",
        "RESTIC_PASSWORD": "a pass phrase",
        "RESTIC_CACHE_DIR": str(bench.work / "cache"),
    }

    def run(*arguments: object) -> bytes:
        return bench.run(program, *arguments, env=environment)

    bench.step("init", lambda: _void(run("init")))
    bench.step("backup", lambda: _void(run("backup", source)))
    (source / "large").write_bytes(os.urandom(11 << 20))
    bench.step("backup again", lambda: _void(run("backup", source)))
    bench.step("check --read-data", lambda: _void(run("check", "--read-data")))

    def restored() -> None:
        run("restore", "latest", "--target", back)
        same(source, back / source.relative_to("/"))

    bench.step("restore and compare", restored)
    bench.step("forget --keep-last 1 --prune", lambda: _void(run("forget", "--keep-last", "1", "--prune")))
    bench.step("prune", lambda: _void(run("prune", "--max-unused", "0")))
    bench.step("check again", lambda: _void(run("check", "--read-data")))


def s3cmd(bench: Bench, tools: Toolbox) -> None:
    """s3cmd."""
    program = tools.environment("clients") / "s3cmd"
    host = bench.url.removeprefix("http://")
    source, back = tree(bench.work / "source"), bench.work / "back"
    back.mkdir()
    common = ("--config=/dev/null", "--no-ssl", f"--host={host}", f"--host-bucket={host}")
    common += (f"--access_key={bench.environment['AWS_ACCESS_KEY_ID']}",)
    common += (f"--secret_key={bench.environment['AWS_SECRET_ACCESS_KEY']}", "--no-progress")

    def run(*arguments: object) -> bytes:
        return bench.run(program, *common, *arguments)

    bench.step("mb", lambda: _void(run("mb", "s3://s3cmd-one")))
    bench.step(
        "put", lambda: _void(run("put", source / "large", "s3://s3cmd-one/large", "--multipart-chunk-size-mb=5"))
    )
    bench.step("sync up", lambda: _void(run("sync", f"{source}/", "s3://s3cmd-one/tree/")))

    def down() -> None:
        run("sync", "s3://s3cmd-one/tree/", f"{back}/")
        same(source, back)

    bench.step("sync down and compare", down)
    bench.step("info", lambda: _contains(run("info", "s3://s3cmd-one/large"), b"MD5 sum"))
    bench.step("cp", lambda: _void(run("cp", "s3://s3cmd-one/large", "s3://s3cmd-one/copy")))
    bench.step("ls", lambda: _contains(run("ls", "s3://s3cmd-one/"), b"s3://s3cmd-one/copy"))
    bench.step("du", lambda: _contains(run("du", "s3://s3cmd-one"), b"s3://s3cmd-one"))
    bench.step("del --recursive", lambda: _void(run("del", "--recursive", "--force", "s3://s3cmd-one")))
    bench.step("rb", lambda: _void(run("rb", "s3://s3cmd-one")))


def _script(environment: str, name: str) -> Callable[[Bench, Toolbox], None]:
    def run(bench: Bench, tools: Toolbox) -> None:
        bench.script(tools.environment(environment) / "python", name)

    return run


def _void(_: bytes) -> None:
    """It went through, which is all."""


def _empty(said: bytes) -> None:
    assert not said.strip(), said[:300]


def _contains(said: bytes, part: bytes) -> None:
    assert part in said, said[:600]


CLIENTS: dict[str, Callable[[Bench, Toolbox], None]] = {
    "aws": aws,
    "boto3": _script("clients", "script_boto3.py"),
    "rclone": rclone,
    "restic": restic,
    "s3cmd": s3cmd,
    "minio": _script("clients", "script_minio.py"),
    "s3fs": _script("s3fs", "script_s3fs.py"),
    "obstore": _script("clients", "script_obstore.py"),
}
