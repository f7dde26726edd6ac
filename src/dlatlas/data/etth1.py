"""ETTh1: loads and oil temperature of an electricity transformer, hour by hour over two years, from the data home."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.data.home import PublishedFile, fetch
from dlatlas.typed import typed

# Useful and useless load, each high, middle and low; oil temperature in degrees Celsius.
COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
PUBLISHED = PublishedFile(
    "ETTh1.csv",
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv",
    "sha256:f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
)


@typed
def etth1() -> Float[Tensor, "t 7"]:
    """Read the 17,420 hours from July 2016, one row an hour, columns as in `COLUMNS`.

    Raises
    ------
    DataUnavailableError
        If the file is neither in the data home nor to be had from the network.
    """
    columns = range(1, 1 + len(COLUMNS))  # column 0 is the date
    values = np.loadtxt(fetch(PUBLISHED), delimiter=",", skiprows=1, usecols=columns)
    return torch.as_tensor(values, dtype=torch.get_default_dtype())
