"""Small pieces that every package may use: errors, atomic files, lazy registries. Standard library only."""
