"""`sibol stage` against a Hub on this machine: what arrives, what is noted, and that it is found again without a network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_tools.stage import parse_repo
from nemo_ext.common.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b'{"model_type": "qwen2"}', "model.safetensors": bytes(range(256)) * 64, "pytorch_model.bin": b"pickle"}


class Hub(BaseHTTPRequestHandler):
    """What `huggingface_hub` asks of the Hub for one public model, as its API answers."""

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:4] == ["api", "models", "group", "model"]:
            siblings = [{"rfilename": name} for name in FILES]
            self._answer(
                200, json.dumps({"id": "group/model", "sha": COMMIT, "siblings": siblings}).encode(), {"Content-Type": "application/json"}
            )
        elif parts[:3] == ["group", "model", "resolve"] and parts[-1] in FILES:
            content = FILES[parts[-1]]
            etag = hashlib.sha256(content).hexdigest()
            self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """The address of a Hub that has one model."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def python(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_DISABLE_XET": "1", **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def stage(hub: str, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "recipes.cli.main", "stage", *arguments, cwd=cwd, HF_HUB_OFFLINE="0", HF_ENDPOINT=hub)


def test_a_staged_cache_serves_a_job_without_internet(hub: str, tmp_path: Path) -> None:
    cache = tmp_path / "a cache"
    result = stage(hub, tmp_path, "group/model", "--cache", str(cache), "--skip", "*.bin")
    assert result.returncode == 0, result.stderr
    record = json.loads((cache / "staged.json").read_text())
    (entry,) = record["staged"]
    assert (entry["repo"], entry["commit"], entry["files"]) == ("group/model", COMMIT, 2)
    assert entry["bytes"] == len(FILES["config.json"]) + len(FILES["model.safetensors"])
    ask = "from huggingface_hub import hf_hub_download as get; print(get('group/model', 'model.safetensors'))"
    found = python("-c", ask, cwd=tmp_path, HF_HOME=str(cache), HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).read_bytes() == FILES["model.safetensors"]


def test_a_plain_folder_holds_the_files_and_staging_again_changes_nothing(hub: str, tmp_path: Path) -> None:
    for _ in range(2):
        result = stage(hub, tmp_path, "group/model@main", "--to", "models/mine")
        assert result.returncode == 0, result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "models/mine").iterdir() if path.is_file()} == FILES
    assert len(json.loads((tmp_path / "models/staged.json").read_text())["staged"]) == 1


def test_what_cannot_be_fetched_ends_in_one_message(hub: str, tmp_path: Path) -> None:
    result = stage(hub, tmp_path, "group/absent", "--cache", "cache")
    assert result.returncode == 1 and "error: Cannot fetch group/absent at main" in result.stderr and "Traceback" not in result.stderr
    offline = stage("http://127.0.0.1:9", tmp_path, "group/model", "--cache", "cache")
    assert offline.returncode == 1 and "error: Cannot fetch group/model" in offline.stderr and "Traceback" not in offline.stderr
    both = stage(hub, tmp_path, "group/model", "--cache", "cache", "--to", "folder")
    assert both.returncode == 2 and "Give one place" in both.stderr


def test_repositories_are_owner_and_name() -> None:
    assert parse_repo("a/b") == ("a/b", "main") and parse_repo("a/b@v1") == ("a/b", "v1")
    for wrong in ("a", "a/b/c", "/b", "a/", "a/b@"):
        with pytest.raises(ConfigError, match="no repository"):
            parse_repo(wrong)
