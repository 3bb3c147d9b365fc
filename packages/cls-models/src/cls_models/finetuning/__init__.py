"""Transfer learning and distillation."""
