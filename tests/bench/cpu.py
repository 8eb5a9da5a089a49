"""What the CPU under test has."""

from xnornet.bench.machine import fingerprint

VNNI = bool({"avx512_vnni", "avx_vnni", "asimd"}.intersection(fingerprint()["cpu"]["vector_flags"]))
"""Whether sums of int8 products are whole: without it, torch's and ONNX Runtime's saturate."""
