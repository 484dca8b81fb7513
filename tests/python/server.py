"""Starts a real server on a free port of loopback, with a data directory of its own."""

import json
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

START_WITHIN_S = 60
STOP_WITHIN_S = 30

POLICY = """
[clients.shop]
rights = ["verify", "identify", "enrol", "erase", "scores", "admin"]
purposes = ["sim_activation", "data_subject_request", "operations"]
galleries = ["subscribers"]

[clients.back-office]
rights = ["review", "scores"]
purposes = ["case_review"]
galleries = ["subscribers"]

[clients.kiosk]
rights = ["verify", "identify"]
purposes = ["sim_activation"]
galleries = ["subscribers"]

[policy]
max_fmr = 0.01
max_fpir = 0.05
extrapolated_thresholds = false
alternative_route = "Ask for a second ID document and call the back office."
"""


class Server:
    """Runs while a `with` lasts; `address` and `metrics` are set then."""

    def __init__(self, vultus: Path, models: Path, policy: str = POLICY):
        self._folder = tempfile.TemporaryDirectory(prefix="vultus-test-")
        folder = Path(self._folder.name)
        (folder / "vultus.toml").write_text(policy)
        self._command = [vultus, "serve", "--insecure", "--json", "--config", folder / "vultus.toml"]
        self._command += ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
        self._command += ["--data", folder / "data", "--models", models]
        self._log = folder / "server.log"

    def __enter__(self) -> "Server":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True)
        watchdog = threading.Timer(START_WITHIN_S, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        if not line:
            self._process.wait()
            raise RuntimeError(f"the server did not start:\n{self.log()}")
        started = json.loads(line)
        self.address, self.metrics = started["listening"], started["metrics"]
        return self

    def __exit__(self, *_) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"the server did not stop within {STOP_WITHIN_S} s:\n{self.log()}") from None
        finally:
            self._process.stdout.close()
            self._folder.cleanup()

    def log(self) -> str:
        return self._log.read_text(errors="replace")
