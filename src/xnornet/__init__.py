"""XNOR-Net, reproducibly: training with the corrected gradient, packed weights, and a CPU engine that runs them."""
