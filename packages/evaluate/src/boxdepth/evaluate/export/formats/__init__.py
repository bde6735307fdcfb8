"""One module for each format: `write` puts objects into files, `read` finds them there again."""
