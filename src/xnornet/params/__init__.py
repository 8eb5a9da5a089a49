"""params.yaml as frozen, checked objects: an unknown or ill-typed key is an error that names it.

There are no defaults here: params.yaml has every number, once.
"""

from xnornet.params.arms import Arm, Study, arms_of, compared_with, settings_of
from xnornet.params.file import Dataset, Params, load
from xnornet.params.timing import LayerName
from xnornet.params.trainings import (
    RESIDUAL,
    SIZES,
    Augment,
    Data,
    DatasetParams,
    Gradient,
    Optimization,
    Restart,
    Runtime,
    Split,
    Training,
    Variant,
    Xnor,
)
from xnornet.params.values import ParamsError, known

__all__ = [
    "RESIDUAL",
    "SIZES",
    "Arm",
    "Augment",
    "Data",
    "Dataset",
    "DatasetParams",
    "Gradient",
    "LayerName",
    "Optimization",
    "Params",
    "ParamsError",
    "Restart",
    "Runtime",
    "Split",
    "Study",
    "Training",
    "Variant",
    "Xnor",
    "arms_of",
    "compared_with",
    "known",
    "load",
    "settings_of",
]
