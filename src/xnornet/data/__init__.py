"""The data sets: fetched, verified, and prepared as one file each."""

from pathlib import Path

from xnornet.data.prepared import DataError, Images, Prepared
from xnornet.params import Data, ParamsError

__all__ = ["DataError", "Images", "Prepared", "prepare"]


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
    # Imported here: scikit-learn takes seconds, and only this stage needs it.
    from xnornet.data import offline, sources  # noqa: PLC0415

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
