"""Any of the data sets in prepared form. Only the stage `prepare` imports this: where data come from is its matter."""

from pathlib import Path

from xnornet.data import offline, sources
from xnornet.data.prepared import Prepared
from xnornet.params import Data, ParamsError


def prepare(name: str, params: Data, downloads: str | Path = "data/downloads") -> Prepared:
    """Get the data set `name` (mnist, cifar10, digits, shapes) and bring it into prepared form.

    Archives land in `downloads`, unless XNORNET_DATA names a folder that has the data. DataError if the data cannot be
    had or are not what they should be; ParamsError if `params` lacks what the set needs, or has something else.
    """
    wanted = {"mnist": [], "cifar10": [], "digits": ["seed", "test"], "shapes": ["seed", "train", "test"]}[name]
    for key, value in params:
        if (value is not None) != (key in wanted):
            raise ParamsError(
                f"params.yaml: {name}.data.{key}: "
                + ("missing" if key in wanted else f"{name} is taken as it comes; for its validation images, see split")
            )
    match name:
        case "mnist":
            return sources.mnist(Path(downloads))
        case "cifar10":
            return sources.cifar10(Path(downloads))
        case "digits":
            assert params.test is not None and params.seed is not None
            return offline.digits(test=params.test, seed=params.seed)
        case _:
            assert params.train is not None and params.test is not None and params.seed is not None
            return offline.shapes(train=params.train, test=params.test, seed=params.seed)
