"""BERT: an encoder with learned positions, token types and norms after the sublayers."""
