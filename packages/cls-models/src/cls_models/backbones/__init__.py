"""Backbones, pretrained weights, and classification heads."""
