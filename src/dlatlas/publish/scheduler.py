"""Snakemake as the book uses it: quiet, stopped at once by Ctrl-C, and asked which jobs failed."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
from snakemake.cli import main as snakemake
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from dlatlas.publish.errors import Interrupted, UserError
from dlatlas.publish.layout import Layout
from dlatlas.publish.watch import kill

CLUSTERS = Path("workflow", "profiles")

# What Snakemake says about a job that failed beside the event that we listen to.
_REPEATED_EXCEPTION = "RuleException"
_REPEATED_MESSAGES = ("Exiting because a job execution failed", "WorkflowError:\nAt least one job did not complete")


class Scheduler:
    """The graph of the Snakefile, and what became of it.

    Attributes
    ----------
    failed
        What jobs that failed should have made, with the reason; files are named as in the Snakefile. A chapter whose
        cell raises is no such job; one that was killed, ran out of time or could not start is.
    """

    def __init__(self, layout: Layout, chapters: Sequence[str], jobs: int, cluster: str | None) -> None:
        self.failed: dict[str, str] = {}
        self._interrupted = False
        logger.addFilter(self._listen)
        # The rules call `python`; it must be the one that runs this.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self._arguments = [
            *("--snakefile", str(layout.root / "Snakefile"), "--directory", str(layout.root)),
            *("--config", f"profile={layout.profile}", f"chapters={','.join(chapters)}"),
            # A killed build leaves Snakemake's own lock; ours ends with the process that holds it.
            *("--nolock", "--rerun-incomplete", "--keep-going"),
            *(_on_cluster(layout, cluster, jobs) if cluster else _on_this_machine(jobs)),
        ]

    def run(self, *targets_and_options: str) -> bool:
        """Run up to a target; say whether all went well.

        Raises
        ------
        Interrupted
            When the user stops it; what was started has ended by then.
        """
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            done = _succeeds([*targets_and_options, *self._arguments])
        except KeyboardInterrupt:
            done = False
        finally:
            signal.signal(signal.SIGINT, before)
        if self._interrupted:
            raise Interrupted("interrupted; the same command goes on from here")
        return done

    def _interrupt(self, *_: object) -> None:
        """End all jobs: Snakemake would wait for them."""
        self._interrupted = True
        kill(psutil.Process().children(recursive=True))
        raise KeyboardInterrupt

    def _listen(self, record: logging.LogRecord) -> bool:
        """Take note of jobs that failed; let through what else went wrong, since the display says what goes on."""
        if getattr(record, "event", None) is LogEvent.JOB_ERROR:
            reason = f"{record.rule_msg or 'the run ended without a result'}; see {record.log[0]}"
            self.failed.update(dict.fromkeys(record.output, reason))
            return False
        return record.levelno >= logging.WARNING and not self._interrupted and not _repeats(record)


def _repeats(record: logging.LogRecord) -> bool:
    """Whether a message says again that a job failed."""
    return getattr(record, "exception", None) == _REPEATED_EXCEPTION or record.getMessage().startswith(
        _REPEATED_MESSAGES
    )


def _succeeds(arguments: list[str]) -> bool:
    try:
        snakemake(arguments)
    except SystemExit as end:
        return not end.code
    return True


def _on_this_machine(jobs: int) -> list[str]:
    # Chapters of the gpu profile ask for a GPU each, and take turns.
    return ["--cores", str(jobs), "--resources", "gpu=1"]


def _on_cluster(layout: Layout, cluster: str, jobs: int) -> list[str]:
    folder = layout.root / CLUSTERS / cluster
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in folder.parent.iterdir()))
        raise UserError(f"no cluster profile {cluster!r} in {CLUSTERS}; there is {known}")
    return ["--jobs", str(jobs), "--profile", str(folder)]
