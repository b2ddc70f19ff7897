"""detect.py: images and streams in, annotated ones out; and where AKConv samples."""
