"""A job → argv, environment, process: the only place where workers are started."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ftapp.contract.errors import JobError, StorageError
from ftapp.processes.child import start_detached, stop_tree
from ftapp.store.jobs import Job

Verb = Literal["train", "evaluate", "publish", "chat", "preview", "check"]

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_DISABLE_CODE": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8",
}

SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OAUTH_CLIENT_SECRET", "FTAPP_PASSWORD")
"""What of the web's environment is no worker's business."""


def worker_argv(verb: Verb, *arguments: str) -> list[str]:
    """The command line of a worker; never carries a hyperparameter or a secret."""
    return [sys.executable, "-m", "ftapp.workers", verb, *arguments]


def worker_env(token: str | None) -> Mapping[str, str]:
    """The environment of a worker: ours, quiet, and with the Hub token of whoever asked."""
    env = {**os.environ, **QUIET}
    for secret in SECRETS:
        env.pop(secret, None)
    env.pop("SYSTEM", None)  # trackio locks its database for itself alone where it says `spaces`
    if token:
        env["HF_TOKEN"] = token
    root = str(Path(__file__).parents[2])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    return env


def launch(job: Job, verb: Verb, token: str | None, processes: int = 1) -> None:
    """Start the job's worker, or several that train together; raises JobError, StorageError if the machine refuses."""
    argv = worker_argv(verb, str(job.folder))
    if processes > 1:
        argv = [sys.executable, "-m", "ftapp.processes.ranks", str(processes), verb, str(job.folder)]
    try:
        process = start_detached(argv, worker_env(token), job.output)
    except OSError as error:
        raise JobError(f"The worker could not be started: {error.strerror}.", "Free memory or disk space.") from error
    try:
        job.record_process(process)
    except StorageError:
        stop_tree(process)  # nobody would know it
        raise
