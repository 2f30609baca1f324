"""ModernBERT: an encoder with rotary positions, local and global attention, and no biases."""
