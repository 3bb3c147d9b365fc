"""Batched augmentation on the device, with separate parameters for every sample.

Shapes throughout: B images of height H and width W, channels R, G, B, levels 0-255. Parameters are
drawn on the CPU, so they are the same on every device. Pixel noise alone is drawn on the device
of the images.
"""
