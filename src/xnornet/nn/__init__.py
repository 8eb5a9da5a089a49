"""The networks: the maths of binarization, layers, models, training."""

from xnornet.nn.binarize import centre_, clamp_, scaled_sign, sign_ste, update_binary_grad_weight
from xnornet.nn.layers import Normalize, XnorConv2d, XnorLinear, binary_layers, count_parameters
from xnornet.nn.modelfile import ModelFileError, load_model, save_model
from xnornet.nn.models import LeNet5, ResNet18, build_model

__all__ = [
    "LeNet5",
    "ModelFileError",
    "Normalize",
    "ResNet18",
    "XnorConv2d",
    "XnorLinear",
    "binary_layers",
    "build_model",
    "centre_",
    "clamp_",
    "count_parameters",
    "load_model",
    "save_model",
    "scaled_sign",
    "sign_ste",
    "update_binary_grad_weight",
]
