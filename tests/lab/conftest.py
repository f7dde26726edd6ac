import json

import pytest
import torch

from dlatlas.lab.run import Run

CHAPTER = "theory/grokking"


@pytest.fixture
def run():
    return Run(chapter=CHAPTER, profile="cpu", seeds=4, device=torch.device("cpu"))


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry with one paper and one claim of every kind of support."""

    def claim(name, support):
        return {
            "id": f"paper/{name}",
            "says": "the method does better",
            "measure": "accuracy",
            "method": "ours",
            "baseline": "theirs",
            "data": "digits",
            "expect": "as registered",
            "support": support,
            "note": None,
        }

    supports = {
        "more": "higher",
        "less": "lower",
        "same": {"equal": 0.1},
        "few": {"between": [None, 1]},
        "rate": {"slope": [-1.2, -0.8]},
        "steeper": {"slope": [0.5, None], "of": "difference"},
    }
    row = {
        "id": "paper",
        "n": 1,
        "title": "A paper",
        "cite": {"authors": None, "year": None, "venue": None, "arxiv": None, "doi": None},
        "chapter": CHAPTER,
        "kind": "theory",
        "source": "known",
        "repo": None,
        "implements": [],
        "status": "planned",
        "claims": [claim(name, support) for name, support in supports.items()],
    }
    part, _, _ = CHAPTER.partition("/")
    contents = [
        {
            "part": part,
            "title": "Theory",
            "chapters": [{"chapter": CHAPTER, "title": "G", "question": "Q?", "papers": ["paper"]}],
        }
    ]
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / f"{part}.yml").write_text(json.dumps([row]))  # JSON is YAML
    (tmp_path / "contents.yml").write_text(json.dumps(contents))
    monkeypatch.setenv("DLATLAS_BOOK", str(tmp_path))


@pytest.fixture
def shown(monkeypatch):
    """Everything that the laboratory displays, as MIME bundles."""
    bundles = []
    monkeypatch.setattr("dlatlas.lab.cards.display", lambda bundle, raw: bundles.append(bundle))
    return bundles
