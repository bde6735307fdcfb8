"""BoxDepth."""
