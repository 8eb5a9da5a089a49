"""XNOR-Net, reproducibly: training with the corrected gradient, packed binary weights, and a CPU engine that runs them."""
