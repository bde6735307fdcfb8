"""Pages and pictures that the pipelines write."""
