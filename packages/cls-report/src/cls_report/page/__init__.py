"""The HTML page: blocks, rendering, and assets."""
