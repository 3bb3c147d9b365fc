"""JSONL annotations, class indices, and the quarantine."""
