"""app.py: a page in the browser that shows what trained models detect, how they differ, and where AKConv samples."""
