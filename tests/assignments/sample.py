"""A book with one small chapter, and a course made of it."""

from pathlib import Path

from dlatlas.publish.assignments.course import Course, read_course
from dlatlas.publish.layout import Layout

CHAPTER = "theory/grokking"

PAGE = '''---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3, language: python}
---

# Grokking

```{code-cell} ipython3
:tags: [parameters]

profile = "cpu"
```

```{code-cell} ipython3
import math
from fractions import Fraction

raise_if_run = 1 / 0
```

(grokking-lazy-to-rich)=
## A section

The half $h$ of a number $x$ is

$$
h = x / 2 .
$$ (eq-half)

```{code-cell} ipython3
---
mystnb:
  figure:
    caption: |
      Halves. They shrink.
    name: fig-halves
---
# What every exercise needs.
two = Fraction(2)


def half(x):
    return x / two


unused = half(raise_if_run)
```

## Exercises

```{exercise} Quarters
:label: ex-quarter

Write `quarter(x)` by {eq}`eq-half` of {cite:t}`grokking-lazy-to-rich`; see {numref}`fig-halves`.
```

```{code-cell} ipython3
---
nbgrader: {grade: false, grade_id: quarter, locked: false, schema_version: 3, solution: true}
---
def quarter(x):
    """A quarter of a number."""
    ### BEGIN SOLUTION
    return half(half(x))
    ### END SOLUTION
```

```{code-cell} ipython3
---
nbgrader: {grade: true, grade_id: quarter-visible, locked: true, points: 2, schema_version: 3, solution: false}
---
got = quarter(8)
assert got == 2, f"a quarter of 8: expected 2, got {got}"
```

```{code-cell} ipython3
---
nbgrader: {grade: true, grade_id: quarter-hidden, locked: true, points: 3, schema_version: 3, solution: false}
---
### BEGIN HIDDEN TESTS
assert quarter(3) == Fraction(3, 4)
### END HIDDEN TESTS
```

A remark that stays in the chapter.

+++ {"nbgrader": {"grade": true, "grade_id": "quarter-why", "points": 5, "schema_version": 3, "solution": true}}

```{solution-start} ex-quarter
:class: dropdown
```

Half of a half, by {eq}`eq-half`.

```{code-cell} ipython3
:tags: [released]

print(math.floor(quarter(9)))
```

```{solution-end}
```

```{exercise} Not graded
:label: ex-open

Think.
```
'''

COURSE = """name: Halves
package: dlatlas==1.2
assignments:
  hw1:
    title: Quarters
    due: 2027-10-18T23:59+02:00
    exercises: [ex-quarter]
    points: {ex-quarter: 20}
"""

MUTANTS = """quarter:
  - name: once only
    replace: half(half(x))
    by: half(x)
  - name: rounded
    replace: half(half(x))
    by: int(half(half(x)))
"""


def sample_book(root: Path, page: str = PAGE, mutants: str = MUTANTS) -> Layout:
    """Write the chapter and its mutants."""
    for name, text in {
        f"notebooks/{CHAPTER}.md": page,
        f"tests/assignments/mutants/{CHAPTER}.yml": mutants,
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Layout(root, "cpu")


def sample_course(root: Path, text: str = COURSE) -> Course:
    """Write and read a course file."""
    file = root / "course.yml"
    file.write_text(text)
    return read_course(file)
