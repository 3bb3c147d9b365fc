"""Image decoding, resizing, and the decode-once store."""
