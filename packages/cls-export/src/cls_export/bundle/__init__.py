"""Bundle files: golden set and staging."""
