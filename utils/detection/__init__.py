"""detect.py: pictures and streams in, annotated ones out; and where AKConv samples."""
