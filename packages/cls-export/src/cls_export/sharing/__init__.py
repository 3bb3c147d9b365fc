"""Push bundles to registries and object storage, and pull them by digest."""
