"""The command line: files in, attention, files and plain words out; `main` is the way in."""
