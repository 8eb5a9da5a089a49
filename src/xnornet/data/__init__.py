"""The data sets: fetched, verified and prepared (`xnornet.data.prepare`) as one file each, which all else reads."""

from xnornet.data.prepared import DataError, Images, Prepared

__all__ = ["DataError", "Images", "Prepared"]
