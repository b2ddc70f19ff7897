"""One run: its loop, its optimizer and schedule, its records, and how it goes on where it was stopped."""
