"""The `sibol` command line. Its modules import nothing heavy until their command runs."""
