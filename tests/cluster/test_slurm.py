"""Two chapters as Slurm jobs on this machine: `make test-cluster`."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest

from tests.cluster.slurm import cluster, configured, install
from tests.publish.project import PROFILE, book_project

pytestmark = pytest.mark.cluster

# What a job sees of its cluster.
PAGE = ["import os\nprint(*(os.environ[name] for name in ('SLURM_JOB_ID', 'CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS')))"]


def test_two_chapters_run_as_jobs_and_the_site_is_built_from_what_they_wrote(tmp_path: Path) -> None:
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip("needs root on Debian")
    install()
    if configured():
        pytest.skip("this machine belongs to a cluster already")
    project = book_project(tmp_path / "project", {"grokking": PAGE, "neural_tangent_kernel": PAGE})
    (tmp_path / "slurm").mkdir()
    with cluster(tmp_path / "slurm"):
        finished = project.command("build", "--profile", PROFILE, "--jobs", "2", "--cluster", "slurm")
    assert finished.returncode == 0, finished.stdout

    seen = {}
    for name in ("grokking", "neural_tangent_kernel"):
        assert project.record(name)["status"] == "finished"
        output = nbformat.read(project.notebook_file(name), as_version=4).cells[-1].outputs[0].text
        job, gpu, threads = output.split()
        assert threads == "1"
        assert f"{job} {gpu} 1" in (project.root / f"_build/smoke/html/notebooks/theory/{name}.html").read_text()
        seen[job] = gpu
    assert len(seen) == 2
    assert all(gpu in ("0", "1") for gpu in seen.values())
