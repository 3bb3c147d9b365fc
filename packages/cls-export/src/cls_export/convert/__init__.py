"""Export from PyTorch and conversion to reduced precision. Needs `cls-export[torch]`."""
