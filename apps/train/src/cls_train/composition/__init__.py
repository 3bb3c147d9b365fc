"""Configuration: command line, validation, and instantiation."""
